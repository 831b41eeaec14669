"""A byte-level BPE made of the package's own prose, with ChatML's markers as control tokens."""

from functools import cache
from pathlib import Path
from typing import Any

from tapster.runtime.chat.builtin import builtin_source
from tapster.training.data.sources import SAMPLES
from tapster.training.student.tokenizer import trained, wrapped


@cache
def description() -> str:
    return trained([Path(SAMPLES / "prose.txt").read_text("utf-8")], 700).to_str()


def small_tokenizer(template: str | None = "chatml") -> Any:
    """With a built-in chat template; ChatML's answers end with its own token."""
    from tokenizers import Tokenizer

    tokenizer: Any = wrapped(Tokenizer.from_str(description()))
    if template == "chatml":
        tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = builtin_source(template) if template else None
    return tokenizer
