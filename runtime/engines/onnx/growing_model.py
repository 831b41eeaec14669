"""Graphs that append to their cache by copying it: one sequence after the other, each with arrays of its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from .feeds import rows_at_once, token_feeds
from .graph import Graph


class GrowingModel:
    """A ``SlotModel`` for any decoder with a cache, such as exports without fused attention."""

    can_rewind = True

    def __init__(self, session: onnxruntime.InferenceSession, graph: Graph, *, num_slots: int) -> None:
        self._session: Any = session
        self._graph = graph
        self._caches: list[list[np.ndarray]] = [self._empty() for _ in range(num_slots)]
        self._names = [graph.logits, *(part.present for part in graph.cache)]
        self.num_slots = num_slots
        self.vocab_size = graph.vocab_size

    def prefill(self, slot: int, ids: Sequence[int], start: int, *, all_rows: bool = False) -> np.ndarray:
        """See ``SlotModel``."""
        self._caches[slot] = [array[:, :, :start] for array in self._caches[slot]]
        size, parts = rows_at_once(self._graph, all_rows=all_rows), []
        for offset in range(0, len(ids), size):
            logits = self._run(slot, ids[offset : offset + size], start + offset)
            parts.append(logits if all_rows else logits[-1:])
        rows = np.concatenate(parts) if all_rows else parts[-1]
        return rows.astype(np.float32)

    def decode(self, slots: Sequence[int], ids: Sequence[int], positions: Sequence[int]) -> np.ndarray:
        """See ``SlotModel``."""
        each = zip(slots, ids, positions, strict=True)
        return np.concatenate([self.prefill(slot, [token], position) for slot, token, position in each])

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """See ``SlotModel``. Runs never write to their past, so the arrays can be shared."""
        self._caches[target] = [array[:, :, :num_tokens] for array in self._caches[source]]

    def close(self) -> None:
        """See ``SlotModel``."""
        self._caches.clear()
        self._session = None

    def _run(self, slot: int, ids: Sequence[int], start: int) -> np.ndarray:
        past = zip(self._graph.cache, self._caches[slot], strict=True)
        feeds = token_feeds(self._graph, [ids], [start]) | {part.past: array for part, array in past}
        logits, *self._caches[slot] = self._session.run(self._names, feeds)
        return logits[0]

    def _empty(self) -> list[np.ndarray]:
        return [np.zeros((1, part.heads, 0, part.width), part.dtype) for part in self._graph.cache]
