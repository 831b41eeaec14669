"""In what the optimiser keeps the weights.

An Adam step moves a weight by about the learning rate. A bfloat16 number has 8 significant bits, so near 0.02 the next
one is 1.2e-4 away, and a step of 2e-5 is rounded away, every time. Norms, which are about one, stay where they are even
at 1e-3. AdamW's second moments, which have the weights' type, never shrink: a thousandth less is rounded away too.
Masters in float32 add such steps up; the forward pass may compute in bfloat16 all the same (autocast).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..recipe.schema import Dtype, Student

if TYPE_CHECKING:
    import torch
    from torch import nn

SIGNIFICANT_BITS = {"bfloat16": 8, "float16": 11, "float32": 24}


def masters_dtype(model: nn.Module, student: Student, lr: float) -> tuple[Dtype, str | None]:
    """What trained weights are kept in, and a warning where that loses updates even at the highest rate, ``lr``."""
    if "float32" in (student.compute, student.masters, student.dtype):
        return "float32", None
    lost = lost_share(model, lr, student.dtype)
    if lost == 0.0:
        return student.dtype, None
    return student.dtype, (
        f"{100 * lost:.3g}% of the weights are so large that a step of {lr:g} is rounded away in {student.dtype}; "
        f'masters = "float32" keeps it'
    )


def lost_share(model: nn.Module, lr: float, dtype: Dtype, samples: int = 4096) -> float:
    """The share of trained weights in ``dtype`` that a step of ``lr`` leaves where they are: those whose neighbour is
    more than twice as far. Of each tensor up to ``samples`` are looked at, evenly spread."""
    smallest_lost = lr * 2.0 ** SIGNIFICANT_BITS[dtype]
    lost = total = 0.0
    for parameter in model.parameters():
        if parameter.requires_grad:
            looked_at = parameter.detach().flatten()[:: max(1, parameter.numel() // samples)]
            lost += _at_least(looked_at, smallest_lost) * parameter.numel()
            total += parameter.numel()
    return lost / max(total, 1.0)


def keep_in(model: nn.Module, dtype: Dtype, compute: Dtype) -> None:
    """Cast trained weights to ``dtype``. Frozen ones follow where the forward pass has no autocast to mix the two."""
    import torch

    target: torch.dtype = getattr(torch, dtype)
    for parameter in model.parameters():
        if (parameter.requires_grad or compute == "float32") and parameter.is_floating_point():
            parameter.data = parameter.data.to(target)


def _at_least(weights: torch.Tensor, bound: float) -> float:
    """The share of ``weights`` whose power of two is at least ``bound``'s, that is, whose spacing swallows the step."""
    power = 2.0 ** math.ceil(math.log2(bound))
    return float((weights.abs() >= power).float().mean())
