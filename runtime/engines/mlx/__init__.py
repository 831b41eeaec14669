"""The MLX engine: mlx-lm's models and caches, batched by our own scheduler."""
