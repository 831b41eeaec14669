"""Which part of the gradient each term makes.

With g the gradient of the whole loss and g_i that of term i, weighted, the share is <g_i, g> / <g, g>. Shares add up to
one; a term that works against the others has a negative one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..objectives.batch import GlobalBatch
    from .module import StudentModule


def gradient_shares(
    module: StudentModule,
    batch: Mapping[str, Tensor],
    step: int,
    whole: GlobalBatch,
    signals: Mapping[str, Any],
    autocast: Callable[..., AbstractContextManager[Any]],
) -> dict[str, float]:
    """Of one micro-batch, by the labels of the terms that have a weight, computed under ``autocast`` as the training
    is. Costs a forward pass, and a backward pass for each of them."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    with torch.random.fork_rng(), autocast():  # dropout and noise of the training go on as if nothing had been measured
        forward = replace(module.look(batch, step, **signals), is_training=False)
    gradients = {}
    for label in (label for label, weight in module.assembly.weights(step).items() if weight):
        with autocast():
            total = module.assembly.loss(forward, whole, only=label).total
        if total.requires_grad:
            found = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
            gradients[label] = list(found)
    return shares(gradients)


def shares(gradients: Mapping[str, list[Tensor | None]]) -> dict[str, float]:
    """From each term's gradient, parameter by parameter; None where it does not reach one."""
    along = dict.fromkeys(gradients, 0.0)
    whole = 0.0
    for parts in zip(*gradients.values(), strict=True):
        there = [part for part in parts if part is not None]
        if not there:
            continue
        total = torch.stack([part.float().flatten() for part in there]).sum(dim=0)
        whole += float(total @ total)
        for label, part in zip(gradients, parts, strict=True):
            if part is not None:
                along[label] += float(part.float().flatten() @ total)
    return {label: value / whole for label, value in along.items()} if whole else {}
