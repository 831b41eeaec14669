"""From a checkpoint's tokenizer to a GGUF vocabulary and back, with a check that both make the same tokens."""
