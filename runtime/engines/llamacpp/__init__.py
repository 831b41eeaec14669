"""The llama.cpp engine: continuous batching and a shared prefix cache over llama-cpp-python's low-level API."""
