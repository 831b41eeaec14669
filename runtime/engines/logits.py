"""The logits of any model that runs in this process, for proofs and comparisons; no scheduling, no sampling."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import ConfigError

if TYPE_CHECKING:
    import numpy as np


class LogitsModel(Protocol):
    """A loaded model with room for one sequence."""

    vocabulary: int
    """How many logits a row has, which may be more than the tokenizer has tokens."""

    def logits(self, ids: list[int], start: int) -> "np.ndarray":
        """Logits after each of the ids, which follow the ``start`` that were given before; float32 of shape
        (len(ids), vocabulary), valid until the next call, for the caller to write to."""
        ...

    def forget(self) -> None:
        """Empty the cache."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


def open_logits(
    path: Path,
    *,
    context_tokens: int,
    step_tokens: int,
    threads: int | None = None,
    engine: str | None = None,
) -> LogitsModel:
    """Load the model at ``path``: a GGUF file, or a folder. ``context_tokens`` is the longest sequence, ``step_tokens``
    the most ids of a call. ``engine`` names one, where the format leaves a choice. ModelError, ConfigError."""
    from ..profile import load_profile
    from .registry import choose_engine

    profile = load_profile(path)
    kind = choose_engine(profile.format, engine)
    kind.require_installed()
    if kind.name == "vllm":
        raise ConfigError("the logits of a model behind vLLM are not at hand: choose an engine of this process")
    module = importlib.import_module(f".{kind.room}.logits", __package__)
    return module.open_logits(profile, context_tokens=context_tokens, step_tokens=step_tokens, threads=threads)
