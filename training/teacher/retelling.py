"""The text of a row of tokens, told in the tokens of another tokenizer.

The bytes of the student's tokens are the text. Control tokens stay what they are: one of the same name in the other
vocabulary, or its bos or eos for the student's; one without a counterpart is plain text to the teacher. Both rows of
tokens then end, token by token, somewhere in the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ...runtime.errors import ConfigError, ModelError
from ..objectives.alignment import shared_borders

if TYPE_CHECKING:
    from ...runtime.tokenizer.pieces import Pieces
    from ...runtime.tokenizer.vocabulary import FolderVocabulary


@dataclass(frozen=True, slots=True)
class Told:
    """``ids`` of the other tokenizer; ``stretches`` pairs the tokens, the student's first, that cover the same text."""

    ids: list[int]
    stretches: list[tuple[slice, slice]]


@dataclass(slots=True)
class _Tokens:
    """Tokens, and the byte of the text at which each ends."""

    ids: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)


class Retelling:
    """From the tokens of ``student`` to those of ``teacher``, both fast tokenizers of transformers. ConfigError for one
    that does not say which text a token stands for."""

    def __init__(self, student: Any, teacher: Any) -> None:
        from ...runtime.tokenizer.pieces import Pieces

        if not teacher.is_fast:
            raise ConfigError("the teacher's tokenizer does not say what text its tokens stand for: save a fast one")
        self._teacher = teacher
        vocabulary = vocabulary_of_tokenizer(student)
        self._pieces, self._their_pieces = Pieces(vocabulary), _pieces(teacher)
        self._before = _first_token(teacher)
        self._controls = _counterparts(student, teacher, vocabulary)

    def tell(self, ids: Sequence[int]) -> Told:
        """A document. What follows bytes that are no text, as at a cut, is left out."""
        ours, theirs = _Tokens(), _Tokens()
        if self._before is not None and (not ids or self._controls.get(ids[0]) != self._before):
            _append(theirs, [self._before], [0])
        for run, is_control in _runs(ids, self._controls):
            begin = ours.ends[-1] if ours.ends else 0
            if is_control:
                self._control(run[0], begin, ours, theirs)
            elif not self._text(run, begin, ours, theirs):
                break
        return Told(theirs.ids, shared_borders(ours.ends, theirs.ends))

    def _control(self, token: int, begin: int, ours: _Tokens, theirs: _Tokens) -> None:
        end = begin + 1  # any length will do, if it is the same for both
        _append(ours, [token], [end])
        counterpart = self._controls[token]
        if counterpart is not None:
            _append(theirs, [counterpart], [end])

    def _text(self, run: Sequence[int], begin: int, ours: _Tokens, theirs: _Tokens) -> bool:
        """False where the text breaks off."""
        pieces = [self._pieces[token] for token in run]
        data = b"".join(pieces)
        text, is_whole = _sound(data)
        _append(ours, run, [begin + end for end in accumulate(map(len, pieces))])
        encoded = self._teacher(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids = encoded["input_ids"]
        ends = self._exact_ends(ids, text.encode()) or _letter_ends(encoded["offset_mapping"], text)
        _append(theirs, ids, [begin + end for end in ends])
        return is_whole

    def _exact_ends(self, ids: Sequence[int], data: bytes) -> list[int] | None:
        """By the teacher's own bytes, where they are those of the text."""
        if self._their_pieces is None:
            return None
        pieces = [self._their_pieces[token] for token in ids]
        return list(accumulate(map(len, pieces))) if b"".join(pieces) == data else None


def vocabulary_of_tokenizer(tokenizer: Any) -> FolderVocabulary:
    """ConfigError for a tokenizer without a tokenizer.json."""
    from ...runtime.tokenizer.vocabulary import read_vocabulary

    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        vocabulary = read_vocabulary(Path(folder))
    if vocabulary is None:
        raise ConfigError("the student's tokenizer has no tokenizer.json, so tokens cannot be told by their text")
    return vocabulary


def _counterparts(student: Any, teacher: Any, vocabulary: FolderVocabulary) -> dict[int, int | None]:
    """Ids of the teacher's control tokens by the student's; None for a bos that the teacher has no use for."""
    theirs = {token.content: token_id for token_id, token in teacher.added_tokens_decoder.items() if token.special}
    found: dict[int, int | None] = {
        token_id: theirs[text] for text, token_id in vocabulary.control.items() if text in theirs
    }
    if student.bos_token_id is not None:
        found.setdefault(student.bos_token_id, teacher.bos_token_id)
    if student.eos_token_id is not None and teacher.eos_token_id is not None:
        found.setdefault(student.eos_token_id, teacher.eos_token_id)
    return found


def _first_token(tokenizer: Any) -> int | None:
    """What the tokenizer puts before a text: its bos, or nothing."""
    ids = tokenizer("a")["input_ids"]
    return ids[0] if ids and ids[0] == tokenizer.bos_token_id else None


def _pieces(tokenizer: Any) -> Pieces | None:
    from ...runtime.tokenizer.pieces import Pieces

    try:
        return Pieces(vocabulary_of_tokenizer(tokenizer))
    except ModelError:  # of a kind whose tokens are not read alone
        return None


def _letter_ends(offsets: Sequence[tuple[int, int]], text: str) -> list[int]:
    """Bytes at which tokens end, by the letters that they touch: those that share a letter end together."""
    lengths = [0, *accumulate(len(letter.encode()) for letter in text)]
    return [lengths[stop] for _, stop in offsets]


def _runs(ids: Sequence[int], controls: dict[int, int | None]) -> Iterator[tuple[Sequence[int], bool]]:
    """Control tokens one by one, and what lies between them."""
    start = 0
    for at, token in enumerate(ids):
        if token in controls:
            if at > start:
                yield ids[start:at], False
            yield ids[at : at + 1], True
            start = at + 1
    if start < len(ids):
        yield ids[start:], False


def _sound(data: bytes) -> tuple[str, bool]:
    """The text that the bytes begin with, and whether that is all of them."""
    try:
        return data.decode("utf-8"), True
    except UnicodeDecodeError as error:
        return data[: error.start].decode("utf-8"), False


def _append(tokens: _Tokens, ids: Sequence[int], ends: Sequence[int]) -> None:
    """Ends never go back, whatever a tokenizer says of its offsets."""
    least = tokens.ends[-1] if tokens.ends else 0
    tokens.ids += ids
    tokens.ends += list(accumulate(ends, max, initial=least))[1:]
