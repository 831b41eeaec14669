"""CWCE: cross-entropy weighted by the teacher's confidence (the card of DANTE-Mosaic-3.5B).

    L = (1/N) sum_i w(H_i) CE(x_i, y_i)        w(H) = 0.30 + 0.70 / (1 + exp(1.5 (H - 1.5)))

H_i is the entropy of the teacher's answer i, in nats: the mean over its tokens. The card's minus signs are lost; this
is the only reading in which confident answers weigh most. "Full weight" is approached, not reached: w(0) = 0.933. CE is
taken as the mean over an answer's tokens (``per = "sequence"``), as the card's sum runs over answers.

``normalize = "count"`` divides by N as written, ``"weights"`` by the sum of the weights, so that a batch of uncertain
answers takes no smaller step. A confident teacher's entropies span little of the curve; a calibration spreads those of
the training set: ``quantile`` maps their ranks to (0, 2 midpoint), ``zscore`` takes (H - median) / standard deviation +
midpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ...runtime.errors import ConfigError, TrainingError
from .averages import per_sequence, weigh
from .options import CwceOptions

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import GlobalBatch, Predictions, Rows


def confidence(entropy: Tensor, floor: float = 0.30, slope: float = 1.5, midpoint: float = 1.5) -> Tensor:
    """w(H), of any shape."""
    return floor + (1.0 - floor) * torch.sigmoid(slope * (midpoint - entropy))


class Cwce:
    def __init__(self, options: CwceOptions, label: str = "cwce") -> None:
        self.options = options
        self.label = label
        self._corpus: Tensor | None = None

    def calibrate(self, columns: Mapping[str, Sequence[float]]) -> None:
        """Keep the training set's entropies, sorted, if a calibration needs them."""
        if self.options.calibration == "none":
            return
        if self.options.column not in columns or not len(columns[self.options.column]):
            raise ConfigError(
                f"{self.label} calibrates by the column {self.options.column}, which the rows do not have"
            )
        self._corpus = torch.as_tensor(columns[self.options.column], dtype=torch.float32).sort().values

    def row_weights(self, rows: Rows) -> Tensor:
        entropy = self._calibrated(rows.columns[self.options.column])
        if not entropy.isfinite().all():
            raise TrainingError(f"{self.options.column} of a row is not a number: make the teacher's cache again")
        options = self.options
        weights = confidence(entropy.float(), options.floor, options.slope, options.midpoint)
        return weights * per_sequence(rows) if options.per == "sequence" else weights

    def per_prediction(self, chunk: Predictions) -> Tensor:
        return weigh(-chunk.label_log_probs(), self.row_weights(chunk.rows), chunk)

    def normalizer(self, batch: GlobalBatch) -> float:
        if self.options.normalize == "weights":
            return batch.sums[self.label]
        return float(batch.rows if self.options.per == "sequence" else batch.predictions)

    def _calibrated(self, entropy: Tensor) -> Tensor:
        if self.options.calibration == "none":
            return entropy
        if self._corpus is None:
            raise ConfigError(f"{self.label} has a calibration and saw no training rows to calibrate by")
        corpus, midpoint = self._corpus.to(entropy.device), self.options.midpoint
        if self.options.calibration == "zscore":
            return (entropy - corpus.median()) / corpus.std(correction=0).clamp(min=1e-6) + midpoint
        below = torch.searchsorted(corpus, entropy.float())
        up_to = torch.searchsorted(corpus, entropy.float(), right=True)
        return (below + up_to) / len(corpus) * midpoint
