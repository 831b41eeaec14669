"""Forward KL divergence: KL(P || Q) = sum_v P_v (log P_v - log Q_v), P the teacher, Q the student, at temperature T.

Multiplied by T^2, so that the size of its gradient does not depend on T (Hinton et al., *Distilling the Knowledge in a
Neural Network*, arXiv 1503.02531, section 2). Sparse teachers: see ``pairs``. Of a sampled one, sum_S share (-log Q) is
an unbiased estimate of the cross-entropy (*Sparse Logit Sampling*, arXiv 2503.16870), so the gradient is unbiased too;
the value is off by what the sample's entropy lacks of the teacher's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import kl_div

from .batch import Dense
from .options import ForwardKlOptions
from .pairs import FLOOR, comparable, targets_alike, tempered

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import GlobalBatch, Predictions


def kl(of: Tensor, to: Tensor) -> Tensor:
    """KL(of || to), (n,), from log-probabilities (n, m) that are finite."""
    return kl_div(to, of, reduction="none", log_target=True).sum(-1)


def forward_kl(student_logits: Tensor, teacher_log_probs: Tensor, temperature: float = 1.0) -> Tensor:
    """(n,) of dense distributions, (n, V); the teacher's at temperature 1. Without the factor T^2, and without a
    gradient to the teacher."""
    return _ForwardKl.apply(student_logits, teacher_log_probs, temperature)


class _ForwardKl(torch.autograd.Function):
    """The gradient in the student's logits is (Q - P) / T. Made at once, few tensors as large as the logits exist."""

    @staticmethod
    def forward(ctx: Any, student_logits: Tensor, teacher_log_probs: Tensor, temperature: float) -> Tensor:
        log_p = tempered(teacher_log_probs.to(student_logits.dtype), temperature)
        logits = student_logits if temperature == 1.0 else student_logits / temperature
        log_q = logits.log_softmax(-1).clamp_(min=FLOOR)
        p = log_p.exp()
        ctx.save_for_backward(p, log_q)
        ctx.temperature = temperature
        return log_p.sub_(log_q).mul_(p).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]: once_differentiable drops names
        p, log_q = ctx.saved_tensors
        scale = (grad_outputs[0] / ctx.temperature)[:, None]
        return log_q.exp().mul_(p.sum(-1, keepdim=True)).sub_(p).mul_(scale), None, None


@dataclass(frozen=True)
class ForwardKl:
    options: ForwardKlOptions
    label: str = "forward_kl"

    def per_prediction(self, chunk: Predictions) -> Tensor:
        temperature = self.options.temperature
        if isinstance(targets := targets_alike(chunk), Dense):
            divergence = forward_kl(chunk.logits, targets.log_probs, temperature)
        else:
            divergence = kl(*comparable(chunk, temperature, self.options.missing))
        return divergence * temperature**2

    def normalizer(self, batch: GlobalBatch) -> float:
        return float(batch.predictions)
