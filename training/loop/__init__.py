"""The loop: a stage from its rows to its weights, on transformers' Trainer and accelerate."""
