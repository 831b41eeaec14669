"""Log-probabilities of a few tokens of each prediction: of its label, or of those that a sparse teacher stored.

With q = softmax(z), the gradient of sum_k g_k log q_k in the logits z is the g_k at their tokens, less (sum_k g_k) q
everywhere. Made at once it takes the place of the log-probabilities, in one pass over them; through ``log_softmax`` and
``gather`` it takes a tensor of its own and one of zeros for the g_k, and three more passes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .graph import is_graph_kept


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
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]: once_differentiable drops names
        log_probs, ids = ctx.saved_tensors
        picked = grad_outputs[0]
        q = log_probs.exp() if is_graph_kept() else log_probs.exp_()  # each call made its own
        gradient = q.mul_(-picked.sum(1, keepdim=True))
        return gradient.scatter_add_(1, ids, picked), None
