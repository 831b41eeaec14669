"""One call of a transformers model, in the same way for every architecture."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import Cache

from ..slots.model import OutOfMemory
from .loading import first_line

Mask = torch.Tensor | dict[str, torch.Tensor] | None


class Forward:
    """A model's ``forward`` with only those arguments that its architecture takes."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._takes = set(inspect.signature(model.forward).parameters)
        self._cache_name = "past_key_values" if "past_key_values" in self._takes else "cache_params"
        self.device: torch.device = model.device
        self.vocab_size: int = model.get_output_embeddings().weight.shape[0]

    def __call__(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        cache: Cache | None,
        mask: Mask = None,
        *,
        all_rows: bool = False,
    ) -> np.ndarray:
        """Logits, float32 on the CPU, of each sequence's last token, (batch, vocab), or of all tokens of a batch of
        one. ``ids`` and ``positions`` are (batch, tokens). Without ``cache`` nothing is kept."""
        options: dict[str, Any] = {"position_ids": positions, "logits_to_keep": 0 if all_rows else 1}
        options = {name: value for name, value in options.items() if name in self._takes}
        if cache is not None:
            options[self._cache_name] = cache
        logits = self._model(
            input_ids=ids, attention_mask=mask, use_cache=cache is not None, return_dict=True, **options
        ).logits
        rows = logits[0] if all_rows else logits[:, -1]
        return rows.float().cpu().numpy()

    def tensor(self, values: Any) -> torch.Tensor:
        """Whole numbers on the model's device."""
        return torch.tensor(values, dtype=torch.long, device=self.device)


@contextmanager
def computing() -> Iterator[None]:
    """Without autograd; a device without memory becomes OutOfMemory."""
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise OutOfMemory(f"the device has no memory for this request: {first_line(error)}") from error
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        raise OutOfMemory(f"there is no memory for this request: {first_line(error)}") from error
