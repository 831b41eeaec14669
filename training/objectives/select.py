"""Which positions predict something, found once for all terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import Rows


def predictions_of(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The row and the position of each prediction, (N,) int64 each, in the order of the batch.

    Position t predicts the token at t + 1, so it counts where ``labels[row, t + 1]`` is a token, and never across two
    documents that share a row. The label of a prediction is ``labels[row, position + 1]``.
    """
    counts = batch["labels"][:, 1:] >= 0
    if (segments := batch.get("segments")) is not None:
        counts &= segments[:, 1:] == segments[:, :-1]
    row, position = torch.nonzero(counts, as_tuple=True)
    return row, position


def with_lengths(rows: Rows, row: Tensor) -> Rows:
    """``rows`` with the number of predictions of each; ``row`` (N,) of all predictions of the micro-batch."""
    return replace(rows, lengths=torch.bincount(row, minlength=rows.count))
