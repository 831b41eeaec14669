"""Arcee for mlx-lm: Llama with a feed-forward network of ReLU², without a gate.

A model file as mlx-lm loads it (``model_file`` in config.json): a class ``Model`` and its ``ModelArgs``. It needs
nothing beside mlx and mlx-lm, because it is copied into the folders of converted models.
"""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import llama


@dataclass
class ModelArgs(llama.ModelArgs):
    """The same keys as Llama's."""

    tie_word_embeddings: bool = False


class MLP(nn.Module):
    """Up, ReLU², down."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.up_proj = nn.Linear(args.hidden_size, args.intermediate_size, bias=args.mlp_bias)
        self.down_proj = nn.Linear(args.intermediate_size, args.hidden_size, bias=args.mlp_bias)

    def __call__(self, x: mx.array) -> mx.array:
        return self.down_proj(mx.square(mx.maximum(self.up_proj(x), 0)))


class Model(llama.Model):
    """Llama's model with another feed-forward network in each layer."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__(args)
        for layer in self.model.layers:
            setattr(layer, "mlp", MLP(args))  # noqa: B010  # another class than the one declared

    def shard(self, group: Any = None) -> None:
        """Llama's way of sharing layers out among machines expects a gate."""
        raise NotImplementedError("the Arcee model cannot be shared out among machines")
