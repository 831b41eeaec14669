"""Attention-only models: sequences of different lengths advance in one batch over a table of cells."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..slots.rows import Rows
from .forward import Forward, Mask, computing
from .table_cache import TableCache


class TableModel:
    """A ``SlotModel`` for models in which every layer is attention, full or with a sliding window.

    ``layer_types`` and ``window`` say which layers see how far; all cells are kept, so any prefix can be continued.
    """

    can_rewind = True

    def __init__(self, model: Any, layer_types: Sequence[str], *, num_slots: int, context_length: int) -> None:
        self._forward: Any = Forward(model)
        self._config = config = model.config.get_text_config(decoder=True)
        self._layer_types = layer_types
        self._window: int | None = getattr(config, "sliding_window", None)
        self._cache: Any = TableCache(len(layer_types), num_slots, context_length)
        self._rows = Rows(num_slots, self._swap)
        self._lengths = [0] * num_slots
        self.num_slots = num_slots
        self.vocab_size = self._forward.vocab_size

    def prefill(self, slot: int, ids: Sequence[int], start: int, *, all_rows: bool = False) -> np.ndarray:
        """See ``SlotModel``."""
        row, end = self._rows.row(slot), start + len(ids)
        window = self._cache.window
        window.first, window.count, window.end, window.num_new, window.positions = row, 1, end, len(ids), None
        with computing():
            positions = torch.arange(start, end, device=self._forward.device)[None]
            logits = self._forward(self._forward.tensor([ids]), positions, self._cache, all_rows=all_rows)
        self._lengths[slot] = end
        return logits

    def decode(self, slots: Sequence[int], ids: Sequence[int], positions: Sequence[int]) -> np.ndarray:
        """See ``SlotModel``."""
        with computing():
            order = self._rows.gather(slots)
            at = self._forward.tensor([positions[index] for index in order])
            mask = self._see(at, positions)
            tokens = self._forward.tensor([[ids[index]] for index in order])
            logits = self._forward(tokens, at[:, None], self._cache, mask)
        for slot, position in zip(slots, positions, strict=True):
            self._lengths[slot] = position + 1
        return logits if order == list(range(len(order))) else logits[np.argsort(order)]

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """See ``SlotModel``."""
        with computing():
            for layer in self._cache.tables:
                layer.copy(self._rows.row(source), self._rows.row(target), num_tokens)
        self._lengths[target] = num_tokens

    def close(self) -> None:
        """See ``SlotModel``."""
        self._forward = self._cache = None

    def _see(self, at: torch.Tensor, positions: Sequence[int]) -> Mask:
        """Set the window for one token of each of the first rows, and make the mask that different lengths need."""
        window, count, end = self._cache.window, len(positions), max(positions) + 1
        is_even = min(positions) + 1 == end
        window.first, window.count, window.end, window.num_new = 0, count, end, 1
        window.positions = None if is_even else at
        if is_even:
            return None
        window.rows = torch.arange(count, device=at.device)
        cells = torch.arange(end, device=at.device)
        full = cells <= at[:, None]
        if self._window is None or "sliding_attention" not in self._layer_types:
            return full
        sliding = full & (cells > at[:, None] - self._window)
        masks = {"full_attention": full, "sliding_attention": sliding}
        if hasattr(self._config, "layer_types"):
            return {name: self._additive(mask) for name, mask in masks.items() if name in self._layer_types}
        return self._additive(sliding)

    def _additive(self, mask: torch.Tensor) -> torch.Tensor:
        """As the attention wants a mask that it is handed ready made, (batch, 1, 1, cells)."""
        if self._config._attn_implementation == "sdpa":
            return mask[:, None, None]
        dtype = next(iter(self._cache.tables)).keys
        assert dtype is not None
        zeros = torch.zeros(mask.shape, dtype=dtype.dtype, device=mask.device)
        return zeros.masked_fill(~mask, torch.finfo(dtype.dtype).min)[:, None, None]

    def _swap(self, row: int, other: int) -> None:
        cells = max(self._lengths[self._rows.slot(row)], self._lengths[self._rows.slot(other)])
        if cells:
            for layer in self._cache.tables:
                layer.swap(row, other, cells)
