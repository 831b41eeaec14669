"""Logits of an ONNX folder; see ``engines.logits``."""

from ...profile import ModelProfile
from ..slots.logits import SlotLogits
from .open_model import open_model


def open_logits(
    profile: ModelProfile, *, context_tokens: int, step_tokens: int, threads: int | None = None
) -> SlotLogits:
    """The model of a folder. ModelError when it cannot be loaded."""
    return SlotLogits(open_model(profile.path, context_length=context_tokens, parallel=1, threads=threads))
