"""Tokenizers of models that are folders, for every engine but llama.cpp's, which has its own."""
