"""From a GGUF file back to a folder that transformers loads."""
