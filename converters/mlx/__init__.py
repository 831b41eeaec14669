"""Write MLX folders with mlx-lm: quantized layer by layer, streamed to disk, loadable by ``mlx_lm`` as they are."""
