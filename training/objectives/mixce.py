"""MixCE: cross-entropy mixed with its reverse (Zhang et al., *MixCE*, ACL 2023, arXiv 2305.16958).

    eta CE(P, Q) + (1 - eta) CE(Q, P)

The reverse needs the data's density, which nobody has; the paper's "self-reinforced" approximation weighs each token by
the student's own probability of it, q_t, without a gradient (sg):

    L = (1/N) sum_t [eta + (1 - eta) sg(q_t)] (-log q_t)

Memphis' card names the loss without a number; eta = 0.75 is what its author's training code has. eta = 1 is
cross-entropy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .averages import row_weights, total_weight, weigh
from .options import MixceOptions

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import GlobalBatch, Predictions, Rows


def mixce(label_log_probs: Tensor, eta: float) -> Tensor:
    """(n,) from the labels' log-probabilities (n,)."""
    return -(eta + (1.0 - eta) * label_log_probs.detach().exp()) * label_log_probs


@dataclass(frozen=True)
class Mixce:
    options: MixceOptions
    label: str = "mixce"

    def row_weights(self, rows: Rows) -> Tensor | None:
        return row_weights(rows, self.options.per, self.options.rows)

    def per_prediction(self, chunk: Predictions) -> Tensor:
        return weigh(mixce(chunk.label_log_probs(), self.options.eta), self.row_weights(chunk.rows), chunk)

    def normalizer(self, batch: GlobalBatch) -> float:
        return total_weight(not self.options.needs.tells_rows_apart, self.label, batch)
