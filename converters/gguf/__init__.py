"""Make GGUF files: plan what a model is in GGUF, encode and write it, quantize it, read it back."""
