"""Read a Hugging Face checkpoint: its settings, its tokenizer's files, and its tensors without loading them."""
