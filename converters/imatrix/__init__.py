"""Importance matrices: which columns of a weight matter, measured by the activations that meet them."""
