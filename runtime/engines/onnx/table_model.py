"""Graphs with GroupQueryAttention: a cache in one table per layer, which every run extends where it lies."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from ..slots.memory import lazy_zeros
from ..slots.rows import Rows
from .feeds import rows_at_once, token_feeds
from .graph import LOGITS_FROM, CachePart, Graph

_ALL, _LAST = np.array([0]), np.array([-1])


class TableModel:
    """A ``SlotModel`` whose past and present are the same memory: nothing is copied from step to step.

    A run sees a block of rows of each table. Several rows advance by one token each, whatever their lengths; more
    than one new token is possible for one row at a time only, which is the operator's rule.
    """

    can_rewind = True

    def __init__(
        self, session: onnxruntime.InferenceSession, graph: Graph, *, num_slots: int, context_length: int
    ) -> None:
        self._session: Any = session
        self._graph = graph
        self._cells = context_length
        self._tables = [
            lazy_zeros((num_slots, part.heads, context_length, part.width), part.dtype) for part in graph.cache
        ]
        self._rows = Rows(num_slots, self._swap)
        self._lengths = [0] * num_slots
        self._bindings: dict[tuple[int, int], onnxruntime.IOBinding] = {}
        self.num_slots = num_slots
        self.vocab_size = graph.vocab_size

    def prefill(self, slot: int, ids: Sequence[int], start: int, *, all_rows: bool = False) -> np.ndarray:
        """See ``SlotModel``."""
        row, size, parts = self._rows.row(slot), rows_at_once(self._graph, all_rows=all_rows), []
        for offset in range(0, len(ids), size):
            logits = self._run(row, [ids[offset : offset + size]], [start + offset], all_rows=all_rows)[0]
            parts.append(logits if all_rows else logits[-1:])
        self._lengths[slot] = start + len(ids)
        rows = np.concatenate(parts) if all_rows and len(parts) > 1 else parts[-1]
        return rows.astype(np.float32, copy=False)

    def decode(self, slots: Sequence[int], ids: Sequence[int], positions: Sequence[int]) -> np.ndarray:
        """See ``SlotModel``."""
        order = self._rows.gather(slots)
        logits = self._run(0, [[ids[index]] for index in order], [positions[index] for index in order])[:, -1]
        for slot, position in zip(slots, positions, strict=True):
            self._lengths[slot] = position + 1
        if order != list(range(len(order))):
            logits = logits[np.argsort(order)]
        return logits.astype(np.float32, copy=False)

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """See ``SlotModel``."""
        a, b = self._rows.row(source), self._rows.row(target)
        for table in self._tables:
            table[b, :, :num_tokens] = table[a, :, :num_tokens]
        self._lengths[target] = num_tokens

    def close(self) -> None:
        """See ``SlotModel``."""
        self._bindings.clear()
        self._tables.clear()
        self._session = None

    def _run(
        self, first: int, ids: Sequence[Sequence[int]], starts: Sequence[int], *, all_rows: bool = False
    ) -> np.ndarray:
        """Logits of new tokens in the rows from ``first``, (rows, tokens, vocab); of the last tokens at least."""
        graph = self._graph
        feeds = token_feeds(graph, ids, starts)
        num_rows = len(ids[0]) if graph.gives_all_rows and (all_rows or not graph.can_give_last) else 1
        if graph.can_give_last:
            feeds[LOGITS_FROM] = _LAST if num_rows == 1 else _ALL
        binding = self._binding(first, len(ids))
        for name, array in feeds.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        logits = np.empty((len(ids), num_rows, self.vocab_size), graph.logits_dtype)
        binding.bind_output(graph.logits, "cpu", 0, logits.dtype, logits.shape, logits.ctypes.data)
        self._session.run_with_iobinding(binding)
        return logits

    def _binding(self, first: int, count: int) -> onnxruntime.IOBinding:
        """The rows' cache as input and output. Made once: binding it takes longer than some operators."""
        if (first, count) not in self._bindings:
            binding = self._session.io_binding()
            for part, table in zip(self._graph.cache, self._tables, strict=True):
                self._bind(binding, part, table[first : first + count])
            self._bindings[first, count] = binding
        return self._bindings[first, count]

    def _bind(self, binding: onnxruntime.IOBinding, part: CachePart, block: np.ndarray) -> None:
        binding.bind_input(part.past, "cpu", 0, block.dtype, block.shape, block.ctypes.data)
        binding.bind_output(part.present, "cpu", 0, block.dtype, block.shape, block.ctypes.data)

    def _swap(self, row: int, other: int) -> None:
        cells = max(self._lengths[self._rows.slot(row)], self._lengths[self._rows.slot(other)])
        for table in self._tables if cells else ():
            kept = table[row, :, :cells].copy()
            table[row, :, :cells] = table[other, :, :cells]
            table[other, :, :cells] = kept
