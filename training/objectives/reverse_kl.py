"""Reverse KL divergence: KL(Q || P) = sum_v Q_v (log Q_v - log P_v), Q the student, P the teacher, at temperature T.

It asks the student to stay where the teacher has mass (Gu et al., *MiniLLM*, arXiv 2306.08543), and is multiplied by
T^2 as the forward one is. Where a teacher is sparse, its missing mass is one outcome: without it the divergence would
be infinite (see ``pairs``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .forward_kl import kl
from .options import ReverseKlOptions
from .pairs import comparable, exact

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import GlobalBatch, Predictions


def reverse_kl(student_logits: Tensor, teacher_log_probs: Tensor, temperature: float = 1.0) -> Tensor:
    """(n,) of dense distributions, (n, V); the teacher's at temperature 1. Without the factor T^2."""
    teacher = (teacher_log_probs / temperature).log_softmax(-1)
    return kl((student_logits / temperature).log_softmax(-1), teacher)


@dataclass(frozen=True)
class ReverseKl:
    options: ReverseKlOptions
    label: str = "reverse_kl"

    def per_prediction(self, chunk: Predictions) -> Tensor:
        exact(chunk, self.label)
        teacher, student = comparable(chunk, self.options.temperature)
        return kl(student, teacher) * self.options.temperature**2

    def normalizer(self, batch: GlobalBatch) -> float:
        return float(batch.predictions)
