"""The vocabulary as GGUF holds it: tokens with types, merges or scores, special ids, how text is split."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from ...runtime.errors import ConversionError

SPECIAL_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "sep": "tokenizer.ggml.seperator_token_id",  # the format spells it so
    "pad": "tokenizer.ggml.padding_token_id",
    "mask": "tokenizer.ggml.mask_token_id",
}


class TokenType(IntEnum):
    """llama.cpp's kinds of tokens (``enum llama_token_type``)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """One entry of ``tokens`` and ``types`` for each row of the embedding.

    ``model`` is "gpt2" (byte-level BPE, with ``merges``) or "llama" (SentencePiece, with ``scores``); ``pre`` names
    one of llama.cpp's ways to split text into words. Byte-level tokens are written in GPT-2's alphabet for bytes,
    those that are added to the vocabulary as plain text. ``special`` maps the names of SPECIAL_KEYS to ids.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None = None
    merges: list[str] | None = None
    add_bos: bool | None = None
    add_eos: bool | None = None
    add_space_prefix: bool | None = None
    special: dict[str, int] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """Every ``tokenizer.ggml.*`` key but the ids that end a turn besides eos."""
        values: dict[str, Any] = {
            "tokenizer.ggml.model": self.model,
            "tokenizer.ggml.pre": self.pre,
            "tokenizer.ggml.tokens": self.tokens,
            "tokenizer.ggml.token_type": np.array(self.types, np.int32),
        }
        if self.scores is not None:
            values["tokenizer.ggml.scores"] = np.array(self.scores, np.float32)
        if self.merges is not None:
            values["tokenizer.ggml.merges"] = self.merges
        flags = {
            "add_bos_token": self.add_bos,
            "add_eos_token": self.add_eos,
            "add_space_prefix": self.add_space_prefix,
        }
        values |= {f"tokenizer.ggml.{name}": flag for name, flag in flags.items() if flag is not None}
        return values | {SPECIAL_KEYS[name]: token_id for name, token_id in self.special.items()}

    def id_of(self, text: str) -> int | None:
        """The id of the token that is written ``text``; None when there is none."""
        return self._ids.get(text)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: token_id for token_id, token in enumerate(self.tokens)}


def arrange_tokens(
    entries: Iterable[tuple[int, str, TokenType, float]], num_rows: int
) -> tuple[list[str], list[int], list[float]]:
    """Tokens, types and scores by id. An id that nothing claims becomes ``[PADi]``, which no text can make.

    Later entries replace earlier ones. Refused: an id beyond the embedding, and what llama.cpp would end the process
    for: two ids with one text, a text that is empty or has a NUL in it.
    """
    by_id = {entry[0]: entry for entry in entries}
    size = max(by_id, default=-1) + 1
    if size > num_rows:
        raise ConversionError(
            f"the tokenizer has {size} tokens and the embedding {num_rows} rows: token {size - 1} "
            f"({by_id[size - 1][1]!r}) has no row; resize the embedding or remove the added tokens"
        )
    texts = {entry[1] for entry in by_id.values()}
    if len(texts) < len(by_id) or min(by_id, default=0) < 0 or "" in texts or not is_writable("\n".join(texts)):
        _complain(by_id)
    rows = [by_id.get(i) or (i, _padding(i, texts), TokenType.UNUSED, -10000.0) for i in range(num_rows)]
    return [row[1] for row in rows], [int(row[2]) for row in rows], [row[3] for row in rows]


def _complain(by_id: dict[int, tuple[int, str, TokenType, float]]) -> NoReturn:
    """Name the first token that cannot be written."""
    seen: dict[str, int] = {}
    for token_id, text, _, _ in by_id.values():
        if token_id < 0 or not is_writable(text):
            raise ConversionError(f"the tokenizer has the token {text!r} at id {token_id}, which GGUF cannot hold")
        if (other := seen.setdefault(text, token_id)) != token_id:
            raise ConversionError(f"the tokenizer has the token {text!r} at ids {other} and {token_id}: remove one")
    raise ConversionError("the tokenizer has tokens that GGUF cannot hold")


def is_writable(text: str) -> bool:
    """Whether a GGUF string that llama.cpp reads can be this text. JSON may have half of a surrogate pair."""
    try:
        return b"\0" not in text.encode() and text != ""
    except UnicodeEncodeError:
        return False


def _padding(token_id: int, texts: set[str]) -> str:
    text = f"[PAD{token_id}]"
    while text in texts:
        text = f"[{text}]"
    return text
