"""Rows of a data set to the tensors of a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

IGNORED = -100
NOT_COLUMNS = frozenset({"input_ids", "labels", "segments", "index"})


class Collator:
    """Pads at the right to the longest row. Numbers of a row arrive as ``columns.<name>``, (B,) float32; other columns
    (text) stay behind."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        length = max(len(row["input_ids"]) for row in rows)
        batch = {
            "input_ids": _padded([row["input_ids"] for row in rows], length, self._pad_id),
            "labels": _padded([row["labels"] for row in rows], length, IGNORED),
            "attention_mask": _padded([[1] * len(row["input_ids"]) for row in rows], length, 0),
            "index": torch.tensor([row["index"] for row in rows]),
        }
        if "segments" in rows[0]:
            batch["segments"] = torch.stack([_segments(row["segments"], length) for row in rows])
        return batch | _columns(rows)


def without_labels(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same shapes, with nothing to predict."""
    return {**batch, "labels": torch.full_like(batch["labels"], IGNORED)}


def _padded(lists: Sequence[Sequence[int]], length: int, fill: int) -> Tensor:
    padded = torch.full((len(lists), length), fill, dtype=torch.long)
    for row, values in enumerate(lists):
        padded[row, : len(values)] = torch.as_tensor(values)
    return padded


def _segments(segments: Sequence[int], length: int) -> Tensor:
    """Padding is a document of its own, so that no other one sees it."""
    values = torch.as_tensor(segments)
    return torch.cat([values, values.new_full((length - len(values),), int(values[-1]) + 1)])


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    names = [name for name, value in rows[0].items() if name not in NOT_COLUMNS and _is_number(value)]
    return {f"columns.{name}": torch.tensor([float(row[name]) for row in rows]) for name in names}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def columns_of(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The columns of a batch, without their prefix."""
    return {name.removeprefix("columns."): value for name, value in batch.items() if name.startswith("columns.")}


def position_ids(segments: Tensor) -> Tensor:
    """Positions that begin anew with each document, (B, T). transformers makes attention between documents impossible
    where positions restart and there is no attention mask."""
    positions = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return positions - torch.where(begins, positions, 0).cummax(dim=1).values


def lengths(batch: Mapping[str, Tensor]) -> Tensor:
    """How many tokens the sequence around each token has: (B, 1), or (B, T) where several share a row."""
    if "segments" not in batch:
        return batch["attention_mask"].sum(dim=1, keepdim=True)
    segments = batch["segments"]
    return (segments.unsqueeze(2) == segments.unsqueeze(1)).sum(dim=2)
