"""The transformers engine: PyTorch computes any architecture that transformers knows. The reference for the others."""
