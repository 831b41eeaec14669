"""Tokenizers that are only a tokenizer.model, run by the sentencepiece library."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..json_file import read_optional_json
from .vocabulary import AddedToken, FolderVocabulary, added_entries, added_token, flagged, token_text


def read_pieces(path: Path, config: Mapping[str, Any]) -> FolderVocabulary:
    """The vocabulary of tokenizer.model with what lies beside it. ModelError when it is damaged."""
    processor = _load(path)
    texts: list[str | None] = [processor.id_to_piece(token_id) for token_id in range(processor.get_piece_size())]
    added = {
        token_id: AddedToken(token_id, text, special=True)
        for token_id, text in enumerate(texts)
        if text and (processor.is_control(token_id) or processor.is_unknown(token_id))
    }
    try:
        added |= {token.id: token for token in _declared(path, config)}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"an added token beside {path} is damaged ({error}): download it again") from error
    texts += [None] * (max(added, default=-1) + 1 - len(texts))
    for token in added.values():
        texts[token.id] = token.text
    ids = {token.text: token.id for token in added.values()}
    named = dict(config)
    for name, token_id in (("bos", processor.bos_id()), ("eos", processor.eos_id())):
        if token_text(named.get(f"{name}_token")) is None and token_id >= 0:
            named[f"{name}_token"] = texts[token_id]
    # The default is that of Llama's and Gemma's tokenizer classes.
    first, last = flagged(named, "bos", ids, default=True), flagged(named, "eos", ids)
    unknown = texts[processor.unk_id()] if processor.unk_id() >= 0 else None
    return FolderVocabulary(path, texts, dict(sorted(added.items())), first, last, None, unknown)


def _declared(path: Path, config: Mapping[str, Any]) -> list[AddedToken]:
    found = {token_id: added_token(token_id, entry) for token_id, entry in added_entries(config).items()}
    texts = {token.text for token in found.values()}
    for text, token_id in read_optional_json(path.with_name("added_tokens.json")).items():
        if text not in texts:
            found[int(token_id)] = AddedToken(int(token_id), text, special=False)
    if min(found, default=0) < 0 or max(found, default=0) >= 1 << 24:
        raise ValueError(f"ids from {min(found)} to {max(found)}")
    return list(found.values())


class SentencePieceEncoder:
    """The library's tokenizer, with added tokens looked for first, the longest of those that begin alike."""

    def __init__(self, vocabulary: FolderVocabulary) -> None:
        self._processor = _load(vocabulary.path)
        tokens = vocabulary.added.values()
        self._all = _Split({token.text: token.id for token in tokens})
        self._plain = _Split({token.text: token.id for token in tokens if not token.special})

    def encode(self, text: str, parse_special: bool) -> list[int]:
        """See ``Encoder.encode``."""
        split = self._all if parse_special else self._plain
        ids: list[int] = []
        for part in split.parts(text):
            ids += [split.ids[part]] if part in split.ids else self._processor.encode(part)
        return ids


class _Split:
    """Cuts a text at added tokens."""

    def __init__(self, ids: dict[str, int]) -> None:
        self.ids = ids
        longest_first = sorted(ids, key=len, reverse=True)
        self._pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if ids else None

    def parts(self, text: str) -> list[str]:
        return [part for part in self._pattern.split(text) if part] if self._pattern else [text]


def _load(path: Path) -> Any:
    from sentencepiece import SentencePieceProcessor

    try:
        return SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{path} is no SentencePiece model, or damaged: download it again") from error
