"""Make checkpoints: teacher signals, objectives, recipes, loops."""
