"""A checkpoint computed in the plainest way: transformers, one text at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ENDS = [0, 1, 2]
"""The ends of generation of the tiny checkpoints, which the checks forbid."""


class PlainTransformers:
    """See ``engine_checks.Reference``."""

    def __init__(self, folder: Path) -> None:
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        self._torch = torch
        self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        with self._torch.no_grad():
            return self._model(self._torch.tensor([list(ids)]), use_cache=False).logits[0].numpy()

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "suppress_tokens": ENDS}
        found = self._model.generate(self._torch.tensor([list(ids)]), max_new_tokens=count, **options)
        return found[0, len(ids) :].tolist()
