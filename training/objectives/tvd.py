"""Total variation distance: TVD(P, Q) = 1/2 sum_v |P_v - Q_v|, P the teacher, Q the student, both at temperature T.

As in Wen et al., *f-Divergence Minimization for Sequence-Level Knowledge Distillation* (arXiv 2307.15190). Its gradient
shrinks with T once, not twice as those of the KL divergences do, so it is multiplied by T.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .options import TvdOptions
from .pairs import comparable, exact

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import GlobalBatch, Predictions


def tvd(student: Tensor, teacher: Tensor) -> Tensor:
    """(n,) from log-probabilities (n, m)."""
    return 0.5 * (teacher.exp() - student.exp()).abs().sum(-1)


@dataclass(frozen=True)
class Tvd:
    options: TvdOptions
    label: str = "tvd"

    def per_prediction(self, chunk: Predictions) -> Tensor:
        exact(chunk, self.label)
        teacher, student = comparable(chunk, self.options.temperature, self.options.missing)
        return tvd(student, teacher) * self.options.temperature

    def normalizer(self, batch: GlobalBatch) -> float:
        return float(batch.predictions)
