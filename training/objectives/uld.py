"""ULD: sorted probabilities compared, for teachers with another vocabulary (Boizard et al., arXiv 2402.12030):

    L = sum_i |sort(P)_i - sort(Q)_i|        both in descending order, the shorter padded with zeros

P the teacher, Q the student, at temperature T. It knows how uncertain a teacher is, not about what. Positions must
stand for the same place in the text; where the teacher has nothing to say (a row of -inf) the term is zero. With
``top_k``, or a sparse teacher, that many of the largest are compared, and what remains as one more. What a sparse
teacher left out is known at T = 1 only; with the bound that ``pairs`` takes for it elsewhere, a student that is its
teacher would have a loss, and be sharpened by it (0.2 at T = 1.5, with 5 of 50 tokens), so that is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.nn.functional import pad

from ...runtime.errors import ConfigError
from .batch import Dense
from .options import UldOptions
from .pairs import exact, targets_of, tempered

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import GlobalBatch, Predictions, Targets


def uld(student: Tensor, teacher: Tensor, top_k: int | None = None) -> Tensor:
    """(n,) from probabilities (n, V) and (n, V'), in any order."""
    sizes = student.shape[1], teacher.shape[1]
    if top_k is None or top_k >= max(sizes):
        width = max(sizes)
        sides = [pad(side, (0, width - side.shape[1])).sort(-1, descending=True).values for side in (student, teacher)]
        return (sides[0] - sides[1]).abs().sum(-1)
    largest = [pad(side.topk(min(top_k, size)).values, (0, max(top_k - size, 0)))
               for side, size in zip((student, teacher), sizes, strict=True)]  # fmt: skip
    between = largest[0] - largest[1]
    return between.abs().sum(-1) + between.sum(-1).abs()


@dataclass(frozen=True)
class Uld:
    options: UldOptions
    label: str = "uld"

    def per_prediction(self, chunk: Predictions) -> Tensor:
        exact(chunk, self.label)
        targets = targets_of(chunk)
        has_teacher = (targets.log_probs > -float("inf")).any(-1)
        teacher = _probabilities(targets, self.options.temperature, has_teacher)
        student = chunk.log_probs(self.options.temperature).exp()
        top_k = self.options.top_k if isinstance(targets, Dense) else teacher.shape[1]
        return uld(student, teacher, top_k) * has_teacher

    def normalizer(self, batch: GlobalBatch) -> float:
        return float(batch.predictions)


def _probabilities(targets: Targets, temperature: float, has_teacher: Tensor) -> Tensor:
    log_probs = targets.log_probs.masked_fill(~has_teacher[:, None], 0.0)
    if isinstance(targets, Dense):
        return tempered(log_probs, temperature).exp()
    if temperature != 1.0:
        raise ConfigError(f"uld of a logit cache would be biased at temperature {temperature}: set it to 1")
    return log_probs.exp()
