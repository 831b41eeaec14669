"""Make artifacts: checkpoint to GGUF, MLX and ONNX; quantize; verify; package for publishing."""
