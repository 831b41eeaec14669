"""Logits of a checkpoint, by transformers; see ``engines.logits``."""

from ...profile import ModelProfile
from ..slots.logits import SlotLogits
from .config import TransformersConfig
from .open_model import open_model


def open_logits(
    profile: ModelProfile, *, context_tokens: int, step_tokens: int, threads: int | None = None
) -> SlotLogits:
    """The model of a checkpoint folder. ModelError when it cannot be loaded."""
    config = TransformersConfig(threads=threads)
    return SlotLogits(open_model(profile.path, config, context_length=context_tokens, parallel=1))
