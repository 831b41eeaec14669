"""Forward KL divergence: KL(P || Q) = sum_v P_v (log P_v - log Q_v), P the teacher, Q the student, at temperature T.

Multiplied by T^2, so that the size of its gradient does not depend on T (Hinton et al., *Distilling the Knowledge in a
Neural Network*, arXiv 1503.02531, section 2). Sparse teachers: see ``pairs``. Of a sampled one, sum_S share (-log Q) is
an unbiased estimate of the cross-entropy (*Sparse Logit Sampling*, arXiv 2503.16870), so the gradient is unbiased too;
the value is off by what the sample's entropy lacks of the teacher's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.nn.functional import kl_div

from .options import ForwardKlOptions
from .pairs import comparable

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import GlobalBatch, Predictions


def kl(of: Tensor, to: Tensor) -> Tensor:
    """KL(of || to), (n,), from log-probabilities (n, m) that are finite."""
    return kl_div(to, of, reduction="none", log_target=True).sum(-1)


def forward_kl(student_logits: Tensor, teacher_log_probs: Tensor, temperature: float = 1.0) -> Tensor:
    """(n,) of dense distributions, (n, V); the teacher's at temperature 1. Without the factor T^2."""
    teacher = (teacher_log_probs / temperature).log_softmax(-1)
    return kl(teacher, (student_logits / temperature).log_softmax(-1))


@dataclass(frozen=True)
class ForwardKl:
    options: ForwardKlOptions
    label: str = "forward_kl"

    def per_prediction(self, chunk: Predictions) -> Tensor:
        teacher, student = comparable(chunk, self.options.temperature, self.options.missing)
        return kl(teacher, student) * self.options.temperature**2

    def normalizer(self, batch: GlobalBatch) -> float:
        return float(batch.predictions)
