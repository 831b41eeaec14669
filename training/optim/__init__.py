"""Optimisers and tricks: what a stage does to weights besides following the gradient of its loss."""
