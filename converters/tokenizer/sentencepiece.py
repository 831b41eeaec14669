"""SentencePiece vocabularies: tokens with scores, from tokenizer.model or from a tokenizer.json made of one.

llama.cpp joins the pair of pieces whose union has the highest score; tokenizer.json has ranked merges instead, and
the rank of the first merge that makes a token, negated, is such a score.
"""

import re
from collections.abc import Iterator
from typing import Any

from ...runtime.errors import ConversionError
from ...runtime.tokenizer.vocabulary import flat_steps
from ..checkpoint.checkpoint import Checkpoint
from .added import AddedToken, read_added_tokens
from .bpe import merge_pairs
from .pieces import Pieces, read_pieces
from .special import mark_ends, special_ids, surroundings
from .vocabulary import TokenType, Vocabulary, arrange_tokens

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_ADDED_SCORE = -1000.0
_NUM_BYTES = 256
_SPACE = "▁"


def read_pieces_model(checkpoint: Checkpoint, added: list[AddedToken], num_rows: int) -> Vocabulary:
    """The vocabulary of a checkpoint that has only tokenizer.model."""
    if checkpoint.tokenizer_model is None:
        raise ConversionError(f"{checkpoint.path} has neither tokenizer.json nor tokenizer.model")
    pieces = read_pieces(checkpoint.tokenizer_model)
    return _vocabulary(
        checkpoint, [*_piece_entries(pieces), *_added_entries(added, pieces)], num_rows, pieces.add_space_prefix
    )


def read_pieces_json(
    checkpoint: Checkpoint, description: dict[str, Any], added: list[AddedToken], num_rows: int
) -> Vocabulary:
    """The vocabulary of a tokenizer.json; scores and types by tokenizer.model where that is there, too."""
    if checkpoint.tokenizer_model is not None:
        pieces = read_pieces(checkpoint.tokenizer_model)
    else:
        pieces = _described_pieces(description["model"])
    prefix = space_prefix(description) in ("always", "first" if not checkpoint.chat_templates else "always")
    return _vocabulary(checkpoint, [*_piece_entries(pieces), *_added_entries(added, pieces)], num_rows, prefix)


def space_prefix(description: dict[str, Any]) -> str:
    """Where tokenizer.json puts a space that is not in the text: "always" (before every stretch of text), "never", or
    "first" (only where the text begins), which llama.cpp cannot do.
    """
    for step in flat_steps(description.get("normalizer"), "normalizers"):
        if step.get("type") == "Prepend" and step.get("prepend") == _SPACE:
            return "always"
    for step in flat_steps(description.get("pre_tokenizer"), "pretokenizers"):
        if step.get("type") == "Metaspace":
            return step.get("prepend_scheme") or ("always" if step.get("add_prefix_space", True) else "never")
    return "never"


def _vocabulary(
    checkpoint: Checkpoint, entries: list[tuple[int, str, TokenType, float]], num_rows: int, add_space_prefix: bool
) -> Vocabulary:
    tokens, types, scores = arrange_tokens(entries, num_rows)
    _require_bytes(types)
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    special = special_ids(checkpoint, ids.get, len(tokens))
    add_bos, add_eos, special = mark_ends(surroundings(checkpoint), special, ids.get)
    return Vocabulary(
        model="llama",
        pre="default",
        tokens=tokens,
        types=types,
        scores=scores,
        add_bos=add_bos,
        add_eos=add_eos,
        add_space_prefix=add_space_prefix,
        special=special,
    )


def _require_bytes(types: list[int]) -> None:
    """llama.cpp ends the process at a character that has neither a token nor tokens for its bytes."""
    found = types.count(TokenType.BYTE)
    if found != _NUM_BYTES:
        raise ConversionError(
            f"the SentencePiece vocabulary has {found} byte tokens (<0x00> to <0xFF>) and llama.cpp needs all "
            f"{_NUM_BYTES}: it was trained without byte_fallback"
        )


def _piece_entries(pieces: Pieces) -> Iterator[tuple[int, str, TokenType, float]]:
    kinds = {int(kind): kind for kind in TokenType}
    for token_id, (text, kind, score) in enumerate(zip(pieces.texts, pieces.types, pieces.scores, strict=True)):
        if kind == TokenType.USER_DEFINED:
            text = text.replace(_SPACE, " ")
        yield token_id, text, kinds.get(kind, TokenType.NORMAL), score


def _added_entries(added: list[AddedToken], pieces: Pieces) -> Iterator[tuple[int, str, TokenType, float]]:
    """llama.cpp looks for added tokens in the text as it is, so their spaces are spaces."""
    for token in added:
        kind = TokenType(pieces.types[token.id]) if token.id < len(pieces.types) else TokenType.NORMAL
        if kind in (TokenType.UNKNOWN, TokenType.BYTE) and pieces.texts[token.id] == token.text:
            continue
        if token.special:
            yield token.id, token.text, TokenType.CONTROL, _ADDED_SCORE
        else:
            yield token.id, token.text.replace(_SPACE, " "), TokenType.USER_DEFINED, _ADDED_SCORE


def _described_pieces(model: dict[str, Any]) -> Pieces:
    if isinstance(model["vocab"], list):
        texts = [text for text, _ in model["vocab"]]
        scores = [float(score) for _, score in model["vocab"]]
        unknown = model.get("unk_id")
    else:
        texts = _texts_by_id(model["vocab"])
        scores = _merge_scores(texts, merge_pairs(model))
        unknown = model["vocab"].get(model.get("unk_token"))
    types = [int(TokenType.BYTE if _BYTE.fullmatch(text) else TokenType.NORMAL) for text in texts]
    if unknown is not None:
        types[unknown] = int(TokenType.UNKNOWN)
    return Pieces(texts, scores, types)


def _texts_by_id(vocab: dict[str, int]) -> list[str]:
    """An id without a text gets one that no text can make; added tokens may still claim it."""
    texts = [f"[UNUSED{token_id}]" for token_id in range(max(vocab.values(), default=-1) + 1)]
    for text, token_id in vocab.items():
        texts[token_id] = text
    return texts


def _merge_scores(texts: list[str], merges: list[tuple[str, str]]) -> list[float]:
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    return [-float(ranks.get(text, len(merges))) for text in texts]


class SentencePieceTokenizer:
    """tokenizer.model, run by the sentencepiece library, with added tokens looked for first."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        from sentencepiece import SentencePieceProcessor

        assert checkpoint.tokenizer_model is not None
        pieces = read_pieces(checkpoint.tokenizer_model)
        self.description: dict[str, Any] | None = None
        self.added = read_added_tokens(checkpoint)
        named = {token.text for token in self.added}
        self.added += [
            AddedToken(token_id, text, special=True)
            for token_id, (text, kind) in enumerate(zip(pieces.texts, pieces.types, strict=True))
            if kind in (TokenType.CONTROL, TokenType.UNKNOWN) and text not in named
        ]
        self._ids = {token.text: token.id for token in self.added}
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None
        self._processor: Any = SentencePieceProcessor(model_file=str(checkpoint.tokenizer_model))
        self._ends = surroundings(checkpoint)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in self._split.split(text) if self._split else [text]:
            ids += [self._ids[part]] if part in self._ids else self._processor.encode(part)
        return ids

    def encode_with_special(self, text: str) -> list[int]:
        first, last = ([self._ids[end]] if end in self._ids else [] for end in (self._ends.first, self._ends.last))
        return [*first, *self.encode(text), *last]

    def decode(self, ids: list[int]) -> str:
        return self._processor.decode(ids)
