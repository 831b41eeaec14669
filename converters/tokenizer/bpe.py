"""Byte-level BPE as GGUF holds it: tokens in GPT-2's alphabet for bytes, and merges in order."""

from collections.abc import Iterator
from typing import Any

from ...runtime.errors import ConversionError
from ..checkpoint.checkpoint import Checkpoint
from .added import AddedToken
from .pretokenizer import choose_pretokenizer
from .special import mark_ends, special_ids, surroundings
from .vocabulary import TokenType, Vocabulary, arrange_tokens, is_writable


def read_bpe(checkpoint: Checkpoint, description: dict[str, Any], added: list[AddedToken], num_rows: int) -> Vocabulary:
    """The vocabulary of a tokenizer.json with a byte-level BPE model."""
    model = description["model"]
    for option in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise ConversionError(f"tokenizer.json has {option} {model[option]!r}, which llama.cpp cannot hold")
    tokens, types, _ = arrange_tokens(_entries(model["vocab"], added), num_rows)
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    add_bos, add_eos, special = mark_ends(
        surroundings(checkpoint), special_ids(checkpoint, ids.get, len(tokens)), ids.get
    )
    return Vocabulary(
        model="gpt2",
        pre=choose_pretokenizer(description),
        tokens=tokens,
        types=types,
        merges=read_merges(model),
        add_bos=add_bos,
        add_eos=add_eos,
        special=special,
    )


def _entries(vocab: dict[str, int], added: list[AddedToken]) -> Iterator[tuple[int, str, TokenType, float]]:
    normal = TokenType.NORMAL
    for text, token_id in vocab.items():
        yield token_id, text, normal, 0.0
    for token in added:
        yield token.id, token.text, TokenType.CONTROL if token.special else TokenType.USER_DEFINED, 0.0


def read_merges(model: dict[str, Any]) -> list[str]:
    """``left right`` in order. A part with a space in it cannot be written so: refused."""
    merges = model.get("merges") or []
    if not merges or not isinstance(merges[0], str):
        merges = [" ".join(pair) for pair in merges]
    text = "\n".join(merges)
    if text.count(" ") != len(merges) or not is_writable(text + "."):
        odd = next((merge for merge in merges if merge.count(" ") != 1 or not is_writable(merge)), "")
        raise ConversionError(f"tokenizer.json has the merge {odd!r}, which GGUF cannot hold")
    return merges


def merge_pairs(model: dict[str, Any]) -> list[tuple[str, str]]:
    """The same as pairs; older files write ``left right``, newer ones pairs."""
    merges = model.get("merges") or []
    if merges and isinstance(merges[0], str):
        return [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    return [(left, right) for left, right in merges]
