"""From a GGUF vocabulary back to tokenizer.json and tokenizer_config.json.

The tokenizers library then makes the tokens that llama.cpp makes, not more: a normalizer that the first conversion
could not take along does not come back.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ...runtime.errors import ConversionError
from .pretokenizer import split_named
from .vocabulary import SPECIAL_KEYS, TokenType

_SPACE = "▁"
_ADDS_BOS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken")
"""Splits with which llama.cpp adds bos where the file does not say."""
_FILLS = re.compile(r"\[+PAD\d+\]+")
_ADDED = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)


class TokenizerFiles(NamedTuple):
    """The contents of tokenizer.json and of tokenizer_config.json."""

    tokenizer: dict[str, Any]
    config: dict[str, Any]


def rebuild_tokenizer(metadata: Mapping[str, Any]) -> TokenizerFiles:
    """By the ``tokenizer.ggml.*`` keys. ConversionError for a kind of vocabulary that is not BPE or SentencePiece, and
    for keys that are missing or do not fit together.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model not in ("gpt2", "llama"):
        raise ConversionError(f"a vocabulary of the kind {model!r} cannot be written as a tokenizer.json")
    try:
        return _rebuild(metadata, model)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConversionError(f"the vocabulary is damaged ({reason}): convert the model again") from error


def _rebuild(metadata: Mapping[str, Any], model: str) -> TokenizerFiles:
    tokens = list(metadata["tokenizer.ggml.tokens"])
    types = list(metadata.get("tokenizer.ggml.token_type") or [int(TokenType.NORMAL)] * len(tokens))
    special = _special_texts(metadata, tokens)
    body = _byte_level(metadata, tokens, types) if model == "gpt2" else _sentencepiece(metadata, tokens, types)
    ends = _added_ends(metadata, model)
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(_added_tokens(tokens, types)),
        **body,
        "post_processor": _post_processor(ends, special, tokens) if any(ends) else body["post_processor"],
    }
    return TokenizerFiles(tokenizer, _config(metadata, special, ends))


def _special_texts(metadata: Mapping[str, Any], tokens: list[str]) -> dict[str, str]:
    ids = {name: metadata.get(key) for name, key in SPECIAL_KEYS.items()}
    return {name: tokens[found] for name, found in ids.items() if isinstance(found, int) and found < len(tokens)}


def _added_ends(metadata: Mapping[str, Any], model: str) -> tuple[bool, bool]:
    """Whether bos and eos are added; llama.cpp's defaults where the file says nothing."""
    pre = str(metadata.get("tokenizer.ggml.pre"))
    default_bos = model == "llama" or pre in _ADDS_BOS
    return (
        bool(metadata.get("tokenizer.ggml.add_bos_token", default_bos)),
        bool(metadata.get("tokenizer.ggml.add_eos_token", False)),
    )


def _added_tokens(tokens: list[str], types: list[int]) -> Iterator[dict[str, Any]]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for token_id, (text, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind in _ADDED:
            yield {"id": token_id, "content": text, **flags, "special": kind != TokenType.USER_DEFINED}


def _vocab(tokens: list[str], types: list[int]) -> dict[str, int]:
    """Every token by its text, but those that only fill the embedding."""
    return {
        text: token_id
        for token_id, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if kind != TokenType.UNUSED or not _FILLS.fullmatch(text)
    }


def _byte_level(metadata: Mapping[str, Any], tokens: list[str], types: list[int]) -> dict[str, Any]:
    split = split_named(metadata.get("tokenizer.ggml.pre", "default"))
    merges = [_cut(merge) for merge in metadata["tokenizer.ggml.merges"]]
    steps = split.steps
    return {
        "normalizer": None,
        "pre_tokenizer": steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": _bpe(_vocab(tokens, types), merges) | {"ignore_merges": split.ignore_merges},
    }


def _cut(merge: str) -> list[str]:
    """As llama.cpp does it: at the first space behind the first character."""
    at = merge.find(" ", 1)
    return [merge[:at], merge[at + 1 :]]


def _bpe(vocab: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": merges,
    }


def _sentencepiece(metadata: Mapping[str, Any], tokens: list[str], types: list[int]) -> dict[str, Any]:
    has_prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    prefix = [{"type": "Prepend", "prepend": _SPACE}] if has_prefix else []
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if has_prefix else []
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    scores = metadata.get("tokenizer.ggml.scores") or [0.0] * len(tokens)
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prefix, spaces]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [*decoders, *strip]},
        "model": _bpe(_vocab(tokens, types), _merges_by_score(tokens, types, scores))
        | {"unk_token": tokens[unknown], "fuse_unk": True, "byte_fallback": True},
    }


def _merges_by_score(tokens: list[str], types: list[int], scores: list[float]) -> list[list[str]]:
    """Every way to make a token of two others, the highest score first: what llama.cpp decides while it goes."""
    normal = {text for text, kind in zip(tokens, types, strict=True) if kind == TokenType.NORMAL}
    ranked = sorted(zip(scores, tokens, types, strict=True), key=lambda entry: -entry[0])
    return [
        [text[:cut], text[cut:]]
        for _, text, kind in ranked
        if kind == TokenType.NORMAL
        for cut in range(1, len(text))
        if text[:cut] in normal and text[cut:] in normal
    ]


def _post_processor(ends: tuple[bool, bool], special: dict[str, str], tokens: list[str]) -> dict[str, Any]:
    texts = [special.get(name) for name, is_added in zip(("bos", "eos"), ends, strict=True) if is_added]
    if None in texts:
        raise ConversionError("the vocabulary adds a bos or eos token and does not say which: its id is missing")
    marks = [{"SpecialToken": {"id": special[name], "type_id": 0}} for name in ("bos", "eos") if name in special]
    first, last = (marks[:1] if ends[0] else []), (marks[-1:] if ends[1] else [])
    single = [*first, {"Sequence": {"id": "A", "type_id": 0}}, *last]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, *({**piece, **_second(piece)} for piece in single)],
        "special_tokens": {
            text: {"id": text, "ids": [tokens.index(text)], "tokens": [text]} for text in texts if text is not None
        },
    }


def _second(piece: dict[str, Any]) -> dict[str, Any]:
    kind, value = next(iter(piece.items()))
    return {kind: value | ({"id": "B"} if kind == "Sequence" else {}) | {"type_id": 1}}


def _config(metadata: Mapping[str, Any], special: dict[str, str], ends: tuple[bool, bool]) -> dict[str, Any]:
    architecture = metadata.get("general.architecture")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata.get(f"{architecture}.context_length", 1 << 30),
        "add_bos_token": ends[0],
        "add_eos_token": ends[1],
        **{f"{name}_token": text for name, text in special.items()},
    }
