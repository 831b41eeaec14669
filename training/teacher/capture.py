"""Distributions of a model in memory, over rows of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime.errors import TrainingError
from .head import LOGITS_AT_ONCE, SplitModel
from .shards import row_key

if TYPE_CHECKING:
    from torch import Tensor

_TOKENS_AT_ONCE = 4096
SEED = 42


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A row of a data set, and where its predictions are: ``positions`` t whose next token has a label."""

    input_ids: np.ndarray
    positions: np.ndarray
    segments: np.ndarray | None
    key: int


@dataclass(frozen=True, slots=True)
class Captured:
    """Of one row: ids and log-probabilities (n, k), -inf where there are fewer; ``mass`` (n,) of the true distribution
    that they cover."""

    row: TokenRow
    ids: np.ndarray
    log_probs: np.ndarray
    mass: np.ndarray


def token_row(row: Any) -> TokenRow | None:
    """None for a row without predictions."""
    positions = np.flatnonzero(np.asarray(row["labels"][1:]) >= 0)
    if not len(positions):
        return None
    ids, segments = np.asarray(row["input_ids"], np.int64), row.get("segments")
    return TokenRow(ids, positions, None if segments is None else np.asarray(segments), row_key(ids, positions))


class ModelSource:
    """Captures from a model of transformers: the ``size`` most likely tokens, or a random sample of that many."""

    def __init__(
        self,
        model: Any,
        size: int,
        *,
        sampled: bool,
        vocab_size: int | None = None,
        about: Callable[[], dict[str, Any]] = lambda: {},
    ) -> None:
        self._split = SplitModel(model.eval().requires_grad_(False), vocab_size)
        self.vocab_size = self._split.vocab_size
        self._size, self._sampled = size, sampled
        self.about = about
        """See ``logit_cache.Source``."""

    def capture(self, rows: Sequence[TokenRow]) -> Iterator[list[Captured]]:
        """In any order: rows of similar length are computed together."""
        for group in _groups(sorted(rows, key=lambda row: len(row.input_ids))):
            hidden = self._hidden(group)
            for row, states in zip(group, hidden, strict=True):
                yield [self._of_row(row, states)]

    def _hidden(self, rows: Sequence[TokenRow]) -> list[Tensor]:
        """Hidden states at the predictions of each row."""
        import torch

        from ..loop.collate import Collator

        plain: list[dict[str, Any]] = [
            {"input_ids": row.input_ids, "labels": row.input_ids, "index": 0} for row in rows
        ]
        for one, row in zip(plain, rows, strict=True):
            if row.segments is not None:
                one["segments"] = row.segments
        device = self._split.head.weight.device
        with torch.inference_mode():
            batch = {name: value.to(device) for name, value in Collator(0)(plain).items()}
            hidden, _ = self._split.forward(batch)
            return [hidden[idx, torch.as_tensor(row.positions, device=device)] for idx, row in enumerate(rows)]

    def _of_row(self, row: TokenRow, hidden: Tensor) -> Captured:
        import torch

        uniform = torch.rand(len(hidden), generator=torch.Generator().manual_seed(SEED ^ (row.key >> 1)))
        size = max(1, LOGITS_AT_ONCE // self.vocab_size)
        parts = [
            self._of_chunk(states, numbers.to(states.device))
            for states, numbers in zip(hidden.split(size), uniform.split(size), strict=True)
        ]
        ids, log_probs, mass = (torch.cat(some).cpu().numpy() for some in zip(*parts, strict=True))
        if not np.isfinite(log_probs).all():
            raise TrainingError("the teacher's logits hold NaN or infinity: is its checkpoint whole, its dtype right?")
        return Captured(row, ids, log_probs, mass)

    def _of_chunk(self, hidden: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        import torch

        with torch.inference_mode():
            log_probs = torch.log_softmax(self._split.logits(hidden), dim=-1)
            top, ids = log_probs.topk(self._size, dim=-1)
            mass = top.exp().sum(dim=-1)
            if self._sampled and self._size < self.vocab_size and bool(torch.isfinite(top).all()):
                from .draws import draw

                ids, top = draw(log_probs.exp(), self._size, uniform)
            return ids, top, mass


def _groups(rows: Sequence[TokenRow]) -> Iterator[list[TokenRow]]:
    """Runs of rows that make at most ``_TOKENS_AT_ONCE`` tokens when padded to the longest, which is the last."""
    group: list[TokenRow] = []
    for row in rows:
        is_other = group and (group[0].segments is None) != (row.segments is None)
        if group and (is_other or (len(group) + 1) * len(row.input_ids) > _TOKENS_AT_ONCE):
            yield group
            group = []
        group.append(row)
    if group:
        yield group
