"""Objectives: one small file each, pure functions over a batch; ``registry.py`` names them for recipes."""
