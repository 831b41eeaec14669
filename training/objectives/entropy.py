"""The student's entropy, H(Q) = -sum_v Q_v log Q_v in nats, as a mean over predictions.

As a metric it has weight 0; with a weight it is the entropy minimisation of Grandvalet and Bengio (NeurIPS 2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .batch import Dense
from .options import EntropyOptions
from .pairs import FLOOR, SMALLEST_REST, log_rest

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import GlobalBatch, Predictions, Targets


def entropy_of(log_probs: Tensor) -> Tensor:
    """(n,) in nats, from (n, m)."""
    known = log_probs.clamp(min=FLOOR)
    return -(known.exp() * known).sum(-1)


def entropy_of_targets(targets: Targets) -> Tensor:
    """(n,) of a teacher. Of the top k it is a lower bound, with everything missing as one outcome; a random sample says
    nothing of it."""
    known = entropy_of(targets.log_probs)
    if isinstance(targets, Dense):
        return known
    rest = log_rest(targets)[:, 0]
    return known + torch.where(rest.exp() > SMALLEST_REST, -rest.exp() * rest, 0.0)


@dataclass(frozen=True)
class Entropy:
    options: EntropyOptions
    label: str = "entropy"

    def per_prediction(self, chunk: Predictions) -> Tensor:
        return entropy_of(chunk.log_probs())

    def normalizer(self, batch: GlobalBatch) -> float:
        return float(batch.predictions)
