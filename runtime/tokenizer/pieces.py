"""The bytes of each token, so that the joined pieces of a text's tokens are its bytes.

Byte-level vocabularies write a token in GPT-2's alphabet for bytes. SentencePiece's write a space as ``▁`` and have
tokens ``<0xNN>`` for bytes. A leading space stays a space, as in llama.cpp: the words of a stream would run together.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from ..errors import ModelError
from .vocabulary import FolderVocabulary, flat_steps, is_byte_level

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE = "▁"


class Pieces:
    """The bytes of tokens by id, worked out when they are asked for: a vocabulary has up to half a million. ModelError
    for a tokenizer of another kind."""

    def __init__(self, vocabulary: FolderVocabulary) -> None:
        self._vocabulary = vocabulary
        self._piece = _piece_of(vocabulary)

    def __getitem__(self, token_id: int) -> bytes:
        """Empty for an id without a token."""
        if token := self._vocabulary.added.get(token_id):
            return _added_piece(token.text, is_plain=self._piece is byte_level_piece)
        text = self._vocabulary.text(token_id)
        return b"" if text is None else self._piece(text)


def _added_piece(text: str, *, is_plain: bool) -> bytes:
    """Added tokens are found in the text as it is, so they are what they say."""
    found = None if is_plain else _BYTE.fullmatch(text)
    return bytes([int(found[1], 16)]) if found else encoded(text if is_plain else text.replace(SPACE, " "))


def _piece_of(vocabulary: FolderVocabulary) -> Callable[[str], bytes]:
    description = vocabulary.description
    if description is None:
        return lambda text: _sentencepiece_piece(text, ((SPACE, " "),))
    if is_byte_level(description):
        return byte_level_piece
    decoder = list(flat_steps(description.get("decoder"), "decoders"))
    kinds = {step.get("type") for step in decoder}
    if kinds & {"ByteFallback", "Metaspace", "Replace"}:
        replaced = tuple(_replacements(decoder))
        return lambda text: _sentencepiece_piece(text, replaced)
    model = description["model"].get("type", "BPE")
    raise ModelError(
        f"{vocabulary.path} is a {model} tokenizer with the decoder {'+'.join(map(str, kinds)) or 'none'}: byte-level "
        f"BPE and SentencePiece's can be run"
    )


def _replacements(decoder: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for step in decoder:
        if step.get("type") == "Metaspace":
            yield step.get("replacement") or SPACE, " "
        elif step.get("type") == "Replace" and isinstance(found := (step.get("pattern") or {}).get("String"), str):
            yield found, step.get("content") or ""


def _sentencepiece_piece(text: str, replaced: tuple[tuple[str, str], ...]) -> bytes:
    if found := _BYTE.fullmatch(text):
        return bytes([int(found[1], 16)])
    for old, new in replaced:
        text = text.replace(old, new)
    return encoded(text)


def byte_level_piece(text: str) -> bytes:
    """The bytes that the letters stand for; a token with another letter in it is plain text."""
    letters = _bytes_by_letter()
    try:
        return bytes([letters[letter] for letter in text])
    except KeyError:
        return encoded(text)


@cache
def _bytes_by_letter() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others for the letters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(moved)}


def encoded(text: str) -> bytes:
    """UTF-8; half of a surrogate pair becomes a question mark, as in llama.cpp's engine."""
    return text.encode("utf-8", "replace")
