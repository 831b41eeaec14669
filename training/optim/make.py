"""A stage's optimiser, from its recipe."""

import re

import torch
from torch import nn
from torch.optim import Optimizer

from ..recipe.schema import Optimizer as Options
from .adalite import Adalite

UNDECAYED = re.compile(r"(^|[._])(bias|norm\w*|layernorm|\w*_norm|ln_\w+|A_log|dt_bias)([._]|$)", re.IGNORECASE)
"""Names of parameters that weight decay would only harm: norms, biases, and the time constants of recurrent layers."""


def make_optimizer(model: nn.Module, options: Options, undecayed: set[str] | frozenset[str] = frozenset()) -> Optimizer:
    """Over the parameters that are trained. ``undecayed`` names more that get no weight decay (those that an anchor
    already holds: decay would pull them to zero against it)."""
    groups = decay_groups(model, options.weight_decay, undecayed)
    if options.name == "adalite":
        return Adalite(groups, options.lr, eps=options.eps or 1e-5, norm_loss=options.norm_loss, safe=options.safe)
    fused = all(parameter.device.type in ("cpu", "cuda") for group in groups for parameter in group["params"])
    return torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, eps=options.eps or 1e-8, fused=fused)


def decay_groups(
    model: nn.Module, weight_decay: float, undecayed: set[str] | frozenset[str] = frozenset()
) -> list[dict]:
    """The parameters that are trained, those with weight decay first; empty groups are left out."""
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (others if parameter.dim() < 2 or UNDECAYED.search(name) or name in undecayed else decayed).append(
                parameter
            )
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
