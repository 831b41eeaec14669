"""Logits of an MLX model for proofs and comparisons; see ``engines.logits``."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...json_file import read_json
from ...profile import ModelProfile
from . import caches
from .model import MlxModel, load_mlx

if TYPE_CHECKING:
    from .caches import Caches

_AT_ONCE = 32
"""Tokens of one call, between which Ctrl-C is heard: on a CPU more take many seconds."""


class MlxLogits:
    """See ``engines.logits.LogitsModel``. To be used on the thread that made it."""

    def __init__(self, model: MlxModel) -> None:
        self.vocabulary = model.vocab_size
        self._model: MlxModel | None = model
        self._caches: Caches = model.new_caches()
        self._num_tokens = 0

    def logits(self, ids: list[int], start: int) -> np.ndarray:
        """See ``LogitsModel.logits``. ``start`` may go back to before what was computed."""
        assert self._model is not None
        if start != self._num_tokens:
            kept = caches.trimmed(self._caches, self._num_tokens, start) if 0 < start < self._num_tokens else None
            if kept is None and start:
                raise ValueError(f"{self._num_tokens} tokens were given before, not {start}")
            self._caches = kept if kept is not None else self._model.new_caches()
        self._num_tokens = start + len(ids)
        with self._model.stream():
            parts = [
                np.array(self._model.logits(ids[begin : begin + _AT_ONCE], self._caches))
                for begin in range(0, len(ids), _AT_ONCE)
            ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def forget(self) -> None:
        """Empty the cache."""
        assert self._model is not None
        self._caches, self._num_tokens = self._model.new_caches(), 0

    def close(self) -> None:
        """Free the model."""
        self._model, self._caches = None, []
        MlxModel.clear_cache()


def open_logits(
    profile: ModelProfile, *, context_tokens: int, step_tokens: int, threads: int | None = None
) -> MlxLogits:
    """Load the model. mlx takes the threads that it wants, and a cache grows as it is filled. ModelError, also for a
    folder that brings its model as a Python file, unless that is the one we write."""
    return MlxLogits(load_mlx(profile, trust_remote_code=_has_our_code(profile.path)))


def _has_our_code(folder: Path) -> bool:
    ours, theirs = Path(__file__).with_name("arcee.py"), folder / "arcee.py"
    is_named = read_json(folder / "config.json").get("model_file") == theirs.name
    return is_named and theirs.is_file() and theirs.read_bytes() == ours.read_bytes()
