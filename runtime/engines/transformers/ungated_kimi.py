"""Kimi Linear with a feed-forward network of ReLU² and no gate, which transformers' class does not have.

Such models come from replacing the attention of an Arcee model. ``hidden_act`` names the feed-forward network's
activation in their config; the short convolutions before the attention have SiLU as always.
"""

from typing import Any

import torch
from transformers import KimiLinearForCausalLM
from transformers.models.kimi_linear.modeling_kimi_linear import KimiLinearMLP


class UngatedKimiLinear(KimiLinearForCausalLM):
    """KimiLinearForCausalLM whose dense layers are ungated."""

    def __init__(self, config: Any) -> None:
        config.hidden_act = "silu"
        super().__init__(config)
        for layer in self.model.layers:
            if isinstance(layer.mlp, KimiLinearMLP):
                layer.mlp = _ReluSquared(layer.mlp.hidden_size, layer.mlp.intermediate_size)


class _ReluSquared(torch.nn.Module):
    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.up_proj = torch.nn.Linear(hidden, width, bias=False)
        self.down_proj = torch.nn.Linear(width, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(torch.relu(self.up_proj(x)).square())
