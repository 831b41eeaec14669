"""Log-probabilities of a few tokens of each prediction: of its label, or of those that a sparse teacher stored.

With q = softmax(z), the gradient of sum_k g_k log q_k in the logits z is the g_k at their tokens, less (sum_k g_k) q
everywhere. Made at once it takes one tensor of the logits' size and one pass over it; through ``log_softmax`` and
``gather`` it takes a tensor of zeros for the g_k besides, and three more passes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def picked_log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    """(n, k) of the tokens ``ids`` (n, k), from logits (n, V)."""
    return _Picked.apply(logits, ids)


class _Picked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor) -> Tensor:
        log_probs = logits.log_softmax(-1)
        ctx.save_for_backward(log_probs, ids)
        return log_probs.gather(1, ids)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        log_probs, ids = ctx.saved_tensors
        picked = grad_outputs[0]
        gradient = log_probs.exp().mul_(-picked.sum(1, keepdim=True))
        return gradient.scatter_add_(1, ids, picked), None
