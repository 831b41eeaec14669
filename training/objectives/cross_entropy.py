"""Cross-entropy of the labels.

    L = (1/N) sum_t -log q_t        q_t: the student's probability of token t

over the N predictions that carry a label: with a prompt's labels masked, the answer's tokens alone. ``per =
"sequence"`` takes the mean of each row's mean instead; ``rows = "best"`` counts only the best of ranked answers, which
is the "standard CE loss over the chosen completion" of Memphis' card.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .averages import row_weights, total_weight, weigh
from .options import CrossEntropyOptions

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import GlobalBatch, Predictions, Rows


@dataclass(frozen=True)
class CrossEntropy:
    options: CrossEntropyOptions
    label: str = "cross_entropy"

    def row_weights(self, rows: Rows) -> Tensor | None:
        return row_weights(rows, self.options.per, self.options.rows)

    def per_prediction(self, chunk: Predictions) -> Tensor:
        return weigh(-chunk.label_log_probs(), self.row_weights(chunk.rows), chunk)

    def normalizer(self, batch: GlobalBatch) -> float:
        return total_weight(not self.options.needs.tells_rows_apart, self.label, batch)
