"""The ONNX engine: onnxruntime on the CPU over a cache that the graph updates in place."""
