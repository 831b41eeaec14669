"""tokenizer.model, SentencePiece's own file: its pieces with scores and types, and how it treats spaces.

The file is a protocol buffer (``sentencepiece_model.proto``): field 1 a piece (text 1, score 2, type 3), field 2 how it
was trained (model type 3), field 3 how text is normalized (add_dummy_prefix 3). Reading these few fields here
saves the import of two libraries.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path

from ...runtime.errors import ConversionError
from ...runtime.protobuf import fields

UNIGRAM = 1
_FLOAT = struct.Struct("<f")


@dataclass
class Pieces:
    """By id. ``types`` are those of TokenType: llama.cpp took its numbers from here."""

    texts: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    model_type: int = UNIGRAM
    add_space_prefix: bool = True


def read_pieces(path: Path) -> Pieces:
    """ConversionError when the file is damaged or none of SentencePiece's."""
    pieces = Pieces()
    try:
        data = path.read_bytes()
        for number, value in fields(data):
            if isinstance(value, int):
                continue
            if number == 1:
                _add_piece(pieces, value)
            elif number == 2:
                pieces.model_type = _int_field(value, 3, UNIGRAM)
            elif number == 3:
                pieces.add_space_prefix = bool(_int_field(value, 3, 1))
    except (OSError, IndexError, ValueError, struct.error) as error:
        raise ConversionError(f"{path} is no SentencePiece model, or damaged ({error}): download it again") from error
    if not pieces.texts:
        raise ConversionError(f"{path} is no SentencePiece model: it has no pieces; download it again")
    return pieces


def _add_piece(pieces: Pieces, data: bytes) -> None:
    text, score, kind = b"", 0.0, 1
    for number, value in fields(data):
        if number == 3 and isinstance(value, int):
            kind = value
        elif number == 1 and isinstance(value, bytes):
            text = value
        elif number == 2 and isinstance(value, bytes):
            score = _FLOAT.unpack(value)[0]
    pieces.texts.append(text.decode("utf-8"))
    pieces.scores.append(score)
    pieces.types.append(kind)


def _int_field(data: bytes, wanted: int, default: int) -> int:
    return next((value for number, value in fields(data) if number == wanted and isinstance(value, int)), default)
