"""Models with a recurrent state, or a cache of their own kind: one cache a sequence, one sequence after the other."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from .forward import Forward, computing

_STEPS_AT_MOST = 16


class StateModel:
    """A ``SlotModel`` over transformers' own caches.

    ``continues_chunks`` is False where the model begins anew at every call with several tokens, as Mamba does: a few
    tokens are then computed one by one, and more from the beginning of the sequence.
    """

    can_rewind = False

    def __init__(self, model: Any, *, num_slots: int) -> None:
        self._forward: Any = Forward(model)
        self._config = model.config
        self._caches: list[_StateCache | None] = [None] * num_slots
        self.continues_chunks = True
        self.num_slots = num_slots
        self.vocab_size = self._forward.vocab_size

    def prefill(self, slot: int, ids: Sequence[int], start: int, *, all_rows: bool = False) -> np.ndarray:
        """See ``SlotModel``."""
        cache = self._caches[slot] if start else None
        assert (len(cache.tokens) if cache else 0) == start
        if start and len(ids) > 1 and not self.continues_chunks:
            return self._prefill_anew(slot, list(ids), all_rows=all_rows)
        if cache is None:
            cache = self._caches[slot] = _StateCache(self._config)
        with computing():
            positions = torch.arange(start, start + len(ids), device=self._forward.device)[None]
            logits = self._forward(self._forward.tensor([list(ids)]), positions, cache, all_rows=all_rows)
        cache.tokens += ids
        return logits

    def decode(self, slots: Sequence[int], ids: Sequence[int], positions: Sequence[int]) -> np.ndarray:
        """See ``SlotModel``."""
        each = zip(slots, ids, positions, strict=True)
        return np.concatenate([self.prefill(slot, [token], position) for slot, token, position in each])

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """See ``SlotModel``."""
        cache = self._caches[source]
        assert cache is not None
        assert len(cache.tokens) == num_tokens
        with computing():
            self._caches[target] = copy.deepcopy(cache)

    def close(self) -> None:
        """See ``SlotModel``."""
        self._forward = None
        self._caches.clear()

    def _prefill_anew(self, slot: int, ids: list[int], *, all_rows: bool) -> np.ndarray:
        cache = self._caches[slot]
        assert cache is not None
        if len(ids) > _STEPS_AT_MOST:
            rows = self.prefill(slot, [*cache.tokens, *ids], 0, all_rows=all_rows)
        else:
            rows = np.concatenate([self.prefill(slot, [token], len(cache.tokens)) for token in ids])
        return rows[-len(ids) :] if all_rows else rows[-1:]


class RecomputingModel:
    """A ``SlotModel`` that computes a sequence from its beginning for every token: slow, and right for every model
    that can compute at all, also one that keeps its state in itself."""

    can_rewind = True

    def __init__(self, model: Any, *, num_slots: int) -> None:
        self._forward: Any = Forward(model)
        self._tokens: list[list[int]] = [[] for _ in range(num_slots)]
        self.num_slots = num_slots
        self.vocab_size = self._forward.vocab_size

    def prefill(self, slot: int, ids: Sequence[int], start: int, *, all_rows: bool = False) -> np.ndarray:
        """See ``SlotModel``."""
        tokens = self._tokens[slot] = [*self._tokens[slot][:start], *ids]
        with computing():
            positions = torch.arange(len(tokens), device=self._forward.device)[None]
            rows = self._forward(self._forward.tensor([tokens]), positions, None, all_rows=all_rows)
        return rows[-len(ids) :] if all_rows else rows

    def decode(self, slots: Sequence[int], ids: Sequence[int], positions: Sequence[int]) -> np.ndarray:
        """See ``SlotModel``."""
        each = zip(slots, ids, positions, strict=True)
        return np.concatenate([self.prefill(slot, [token], position) for slot, token, position in each])

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """See ``SlotModel``."""
        self._tokens[target] = self._tokens[source][:num_tokens]

    def close(self) -> None:
        """See ``SlotModel``."""
        self._forward = None


class _StateCache(DynamicCache):
    """Knows its tokens, and so how long the sequence is even where no layer does (all of them linear attention)."""

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self.tokens: list[int] = []

    def get_seq_length(self, layer_idx: int = 0) -> int:
        try:
            return super().get_seq_length(layer_idx)
        except ValueError:
            return len(self.tokens)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        try:
            return super().get_mask_sizes(query_length, layer_idx)
        except ValueError:
            return len(self.tokens) + query_length, 0
