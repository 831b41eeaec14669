"""How the predictions of the global batch are averaged: by token or by sequence, over all rows or the best answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import GlobalBatch, Predictions, Rows

Per = Literal["token", "sequence"]


def row_weights(rows: Rows, per: Per, which: Literal["all", "best"] = "all") -> Tensor | None:
    """(B,) a weight for each prediction of a row, or None where all weigh one.

    By sequence a prediction weighs one over the number of predictions of its row, so that a row weighs one.
    """
    weights = None
    if which == "best":
        weights = (rows.columns["rank"] == 0).float()
    if per == "sequence":
        weights = per_sequence(rows) if weights is None else weights * per_sequence(rows)
    return weights


def per_sequence(rows: Rows) -> Tensor:
    """(B,) one over the number of a row's predictions; rows without any have no say whatever they weigh."""
    assert rows.lengths is not None, "rows without their lengths: see select.with_lengths"
    return 1.0 / rows.lengths.clamp(min=1).float()


def weigh(values: Tensor, weights: Tensor | None, chunk: Predictions) -> Tensor:
    """(n,) ``values``, each times the weight of its row."""
    return values if weights is None else values * weights[chunk.row]


def total_weight(weights_are_one: bool, label: str, batch: GlobalBatch) -> float:
    """What a weighted sum over the global batch is divided by for a mean."""
    return float(batch.predictions) if weights_are_one else batch.sums[label]
