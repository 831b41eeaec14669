"""Two tiny models in numpy whose logits depend on every token before them, so that a wrong cache cannot go unseen."""

from collections.abc import Sequence

import numpy as np

VOCAB, WIDTH, LENGTH = 40, 12, 256


class _Weights:
    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        self.embed = rng.normal(size=(VOCAB, WIDTH))
        self.turn = rng.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
        self.head = 3 * rng.normal(size=(WIDTH, VOCAB))


class ToyAttention:
    """A table of cells; a token sees the cells of its slot up to its own, weighted by distance and likeness."""

    can_rewind = True
    vocab_size = VOCAB

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self.cells = np.full((num_slots, LENGTH, WIDTH), np.nan)
        self.num_prompt_tokens = self.num_copied = self.most_rows = 0
        self.batches: list[int] = []
        self.is_closed = False
        self._weights = _Weights()

    def prefill(self, slot: int, ids: Sequence[int], start: int, *, all_rows: bool = False) -> np.ndarray:
        assert not np.isnan(self.cells[slot, :start]).any(), "a cell was taken for computed that is not"
        self.cells[slot, start:] = np.nan
        rows = np.stack([self._token(slot, token, start + offset) for offset, token in enumerate(ids)])
        self.num_prompt_tokens += len(ids)
        self.most_rows = max(self.most_rows, len(ids) if all_rows else 1)
        return rows if all_rows else rows[-1:]

    def decode(self, slots: Sequence[int], ids: Sequence[int], positions: Sequence[int]) -> np.ndarray:
        assert len(set(slots)) == len(slots)
        self.batches.append(len(slots))
        return np.stack([self._token(*one) for one in zip(slots, ids, positions, strict=True)])

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        self.num_copied += num_tokens
        self.cells[target] = np.nan
        self.cells[target, :num_tokens] = self.cells[source, :num_tokens]

    def close(self) -> None:
        self.is_closed = True

    def _token(self, slot: int, token: int, position: int) -> np.ndarray:
        weights = self._weights
        self.cells[slot, position] = weights.embed[token]
        cells = self.cells[slot, : position + 1]
        nearness = 0.97 ** np.arange(position, -1, -1)
        seen = (nearness * np.exp(np.tanh(cells @ weights.turn @ weights.embed[token]))) @ cells
        return (np.tanh(seen) @ weights.head).astype(np.float32)


class ToyRecurrent:
    """One state a slot, which every token turns; there is no way back."""

    can_rewind = False
    vocab_size = VOCAB

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self.states = np.zeros((num_slots, WIDTH))
        self.lengths = [0] * num_slots
        self.num_prompt_tokens = self.num_copied = 0
        self._weights = _Weights()

    def prefill(self, slot: int, ids: Sequence[int], start: int, *, all_rows: bool = False) -> np.ndarray:
        if start == 0:
            self.states[slot], self.lengths[slot] = 0, 0
        self.num_prompt_tokens += len(ids)
        rows = np.stack([self._token(slot, token, start + offset) for offset, token in enumerate(ids)])
        return rows if all_rows else rows[-1:]

    def decode(self, slots: Sequence[int], ids: Sequence[int], positions: Sequence[int]) -> np.ndarray:
        return np.stack([self._token(*one) for one in zip(slots, ids, positions, strict=True)])

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        assert self.lengths[source] == num_tokens, "a state can only be copied whole"
        self.num_copied += num_tokens
        self.states[target], self.lengths[target] = self.states[source], num_tokens

    def close(self) -> None:
        pass

    def _token(self, slot: int, token: int, position: int) -> np.ndarray:
        assert self.lengths[slot] == position, "a state was continued somewhere else than at its end"
        weights = self._weights
        self.states[slot] = np.tanh(self.states[slot] @ weights.turn + weights.embed[token])
        self.lengths[slot] += 1
        return (self.states[slot] @ weights.head).astype(np.float32)


def answer(model_class: type, prompt: Sequence[int], count: int, eog: frozenset[int] = frozenset()) -> list[int]:
    """Greedy tokens of one sequence alone, one token after the other in a model that has seen nothing else."""
    model, tokens, done = model_class(1), list(prompt), 0
    for _ in range(count):
        row = model.prefill(0, tokens[done:], done)[-1]
        done = len(tokens)
        tokens.append(int(row.argmax()))
        if tokens[-1] in eog:
            break
    return tokens[len(prompt) :]
