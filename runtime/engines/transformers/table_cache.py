"""A key-value cache that is one table per layer, whose rows are sequences of different lengths."""

from dataclasses import dataclass, field

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from ..slots.memory import lazy_zeros

_FIRST_CELLS = 256


@dataclass(slots=True)
class Window:
    """The part of the tables that one call works on: ``count`` rows from ``first``, their first ``end`` cells.

    ``positions``, (count), are where each row's only new token goes; None when all rows have ``end - new`` before.
    """

    first: int = 0
    count: int = 1
    end: int = 0
    num_new: int = 1
    positions: torch.Tensor | None = None
    rows: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))


class TableLayer(CacheLayerMixin):
    """One layer's keys and values, (rows, heads, cells, width) each. New cells are zeros: a masked cell weighs
    nothing only if it is a number.

    On the CPU the whole table is reserved at once, since untouched memory is free; elsewhere it grows.
    """

    is_sliding = False

    def __init__(self, window: Window, num_rows: int, most_cells: int) -> None:
        super().__init__()
        self._window = window
        self._limits = num_rows, most_cells

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Reserve what the first call needs."""
        is_lazy = key_states.device.type == "cpu"
        rows, cells = self._limits if is_lazy else (1, min(_FIRST_CELLS, self._limits[1]))
        self.keys = _zeros(key_states, rows, cells)
        self.values = _zeros(value_states, rows, cells)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: object, **_kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the window's new cells; returns all that it sees, without copying."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        window = self._window
        last = window.first + window.count
        self.reserve(last, window.end)
        assert self.keys is not None
        assert self.values is not None
        for table, states in ((self.keys, key_states), (self.values, value_states)):
            if window.positions is None:
                table[window.first : last, :, window.end - window.num_new : window.end] = states
            else:
                table[window.rows, :, window.positions] = states[:, :, 0]
        seen = slice(window.first, last), slice(None), slice(0, window.end)
        return self.keys[seen], self.values[seen]

    def reserve(self, rows: int, cells: int) -> None:
        """Grow to at least so many rows and cells, by doubling."""
        if self.keys is None or self.values is None:
            return
        has_rows, _, has_cells, _ = self.keys.shape
        if rows <= has_rows and cells <= has_cells:
            return
        rows = has_rows if rows <= has_rows else min(self._limits[0], max(rows, 2 * has_rows))
        cells = has_cells if cells <= has_cells else min(self._limits[1], max(cells, 2 * has_cells))
        # both or none: there may be no memory for the second
        self.keys, self.values = _grown(self.keys, rows, cells), _grown(self.values, rows, cells)

    def copy(self, source: int, target: int, cells: int) -> None:
        """Copy a row's first cells to another row."""
        self.reserve(max(source, target) + 1, cells)
        for table in (self.keys, self.values):
            if table is not None:
                table[target, :, :cells] = table[source, :, :cells]

    def swap(self, row: int, other: int, cells: int) -> None:
        """Exchange the first cells of two rows."""
        self.reserve(max(row, other) + 1, cells)
        for table in (self.keys, self.values):
            if table is not None:
                kept = table[row, :, :cells].clone()
                table[row, :, :cells] = table[other, :, :cells]
                table[other, :, :cells] = kept

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what the next call sees."""
        return self._window.end, 0

    def get_seq_length(self) -> int:
        """Cells before the new ones, of the longest row."""
        return self._window.end - self._window.num_new

    def get_max_length(self) -> int:
        """No limit of its own."""
        return -1


class TableCache(Cache):
    """All layers' tables, seen through one window."""

    def __init__(self, num_layers: int, num_rows: int, most_cells: int) -> None:
        self.window = Window()
        self.tables = [TableLayer(self.window, num_rows, most_cells) for _ in range(num_layers)]
        super().__init__(layers=[*self.tables])


def _zeros(like: torch.Tensor, rows: int, cells: int) -> torch.Tensor:
    shape = (rows, like.shape[1], cells, like.shape[3])
    if like.device.type != "cpu":
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
    whole = {1: np.dtype(np.int8), 2: np.dtype(np.int16), 4: np.dtype(np.int32)}[like.dtype.itemsize]
    return torch.from_numpy(lazy_zeros(shape, whole)).view(like.dtype)


def _grown(table: torch.Tensor, rows: int, cells: int) -> torch.Tensor:
    grown = _zeros(table, rows, cells)
    grown[: table.shape[0], :, : table.shape[2]] = table
    return grown
