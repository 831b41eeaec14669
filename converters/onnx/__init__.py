"""Write a checkpoint as an ONNX folder: a graph of our own, and weights streamed into one file beside it."""
