"""The generalised Jensen-Shannon divergence (Agarwal et al., *On-Policy Distillation*, arXiv 2306.13649):

    JSD_beta = beta KL(P || M) + (1 - beta) KL(Q || M)        M = beta P + (1 - beta) Q

P the teacher, Q the student, both at temperature T; multiplied by T^2. At its ends, where it is zero, the divergences
whose gradients it approaches stand in, as is usual: beta = 0 is KL(P || Q), beta = 1 is KL(Q || P).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

import torch

from .forward_kl import kl
from .options import JsdOptions
from .pairs import comparable, exact

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import GlobalBatch, Predictions


def jsd(student: Tensor, teacher: Tensor, beta: float = 0.5) -> Tensor:
    """(n,) from log-probabilities (n, m) that are finite."""
    if beta == 0.0:
        return kl(teacher, student)
    if beta == 1.0:
        return kl(student, teacher)
    mixture = torch.logaddexp(teacher + log(beta), student + log(1.0 - beta))
    return beta * kl(teacher, mixture) + (1.0 - beta) * kl(student, mixture)


@dataclass(frozen=True)
class Jsd:
    options: JsdOptions
    label: str = "jsd"

    def per_prediction(self, chunk: Predictions) -> Tensor:
        exact(chunk, self.label)
        teacher, student = comparable(chunk, self.options.temperature, self.options.missing)
        return jsd(student, teacher, self.options.beta) * self.options.temperature**2

    def normalizer(self, batch: GlobalBatch) -> float:
        return float(batch.predictions)
