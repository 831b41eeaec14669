"""What the slot scheduler needs of a model."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ...errors import ModelError


class OutOfMemory(Exception):
    """A call needs more memory than there is; what the slots held before it is unchanged. One line to show."""


class SlotModel(Protocol):
    """A model whose cache is a table of slots, each of which holds one sequence from position 0.

    Rows of logits are float32, may be written to and are valid until the next call.
    """

    num_slots: int
    vocab_size: int
    can_rewind: bool
    """False for a recurrent state: a slot can only be continued at its very end, copied whole, or begun anew."""

    def prefill(self, slot: int, ids: Sequence[int], start: int, *, all_rows: bool = False) -> np.ndarray:
        """Compute ``ids`` after the first ``start`` tokens of the slot; what it held behind them is forgotten.

        Returns the last token's logits, (1, vocab), or those of all of them, (len(ids), vocab).
        """
        ...

    def decode(self, slots: Sequence[int], ids: Sequence[int], positions: Sequence[int]) -> np.ndarray:
        """Compute one token of each slot at the slot's own position. Returns logits, (len(slots), vocab)."""
        ...

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Make ``target`` hold the first ``num_tokens`` tokens of ``source`` and nothing else."""
        ...

    def close(self) -> None:
        """Free the model and its cache."""
        ...


def check_last_position(model: SlotModel, context_length: int) -> None:
    """ModelError when a table has no such position: one of a model's own tables, of positions or of rotary angles, may
    end before, and a sequence that gets there would end the engine. What lies before it need not be computed."""
    try:
        model.prefill(0, [0], context_length - 1)
    except Exception as error:  # every library has its own
        raise ModelError(
            f"the model cannot compute {context_length} tokens ({' '.join(str(error).split())[:160]}): lower --context"
        ) from error
