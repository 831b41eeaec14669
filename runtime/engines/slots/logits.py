"""A slot model's logits for a text that is given, as proofs and comparisons ask for them."""

import numpy as np

from .model import SlotModel


class SlotLogits:
    """One text at a time in the model's first slot; see ``engines.logits.LogitsModel``."""

    def __init__(self, model: SlotModel) -> None:
        self._model = model
        self.vocabulary = model.vocab_size

    def logits(self, ids: list[int], start: int) -> np.ndarray:
        """float32 (len(ids), vocabulary) for ``ids``, which follow ``start`` others; valid until the next call."""
        return self._model.prefill(0, ids, start, all_rows=True)

    def forget(self) -> None:
        """A text that begins at 0 begins anew anyway."""

    def close(self) -> None:
        """Free the model."""
        self._model.close()
