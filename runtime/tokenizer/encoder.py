"""Text to ids: tokenizer.json, run by the tokenizers library."""

import threading
from functools import cached_property
from typing import Any, Protocol

from ..errors import ModelError
from .vocabulary import FolderVocabulary

_LONG_CHARS = 4096


class Encoder(Protocol):
    """Text to ids. Usable from any thread."""

    def encode(self, text: str, parse_special: bool) -> list[int]:
        """Added tokens are found in the text; those that are control tokens only with ``parse_special``."""
        ...


class JsonEncoder:
    """The library's tokenizer. Whether control tokens are read is a setting of it, so there may be two of them."""

    def __init__(self, vocabulary: FolderVocabulary) -> None:
        self._tokenizer = _load(vocabulary)
        self._lock = threading.Lock()

    def encode(self, text: str, parse_special: bool) -> list[int]:
        """See ``Encoder.encode``."""
        tokenizer = self._tokenizer if parse_special else self._locked_plain()
        if len(text) > _LONG_CHARS:  # twice as fast, but a task for another thread
            return tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return tokenizer.encode(text, add_special_tokens=False).ids

    def _locked_plain(self) -> Any:
        with self._lock:
            return self._plain

    @cached_property
    def _plain(self) -> Any:
        """One that takes the names of control tokens for ordinary text."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
        tokenizer.encode_special_tokens = True
        return tokenizer


def _load(vocabulary: FolderVocabulary) -> Any:
    """A tokenizers.Tokenizer that neither cuts nor fills up texts."""
    from tokenizers import AddedToken, Tokenizer

    path = vocabulary.path
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more particular
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} cannot be read ({reason}): save the tokenizer again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for token in vocabulary.added.values():  # by id, so that each new one gets the next
        if tokenizer.token_to_id(token.text) is None:
            add = tokenizer.add_special_tokens if token.special else tokenizer.add_tokens
            add([AddedToken(token.text, special=token.special, normalized=False)])
        if (found := tokenizer.token_to_id(token.text)) != token.id:
            raise ModelError(
                f"{path}: the added token {token.text!r} should have the id {token.id} and gets {found}: save the "
                f"tokenizer again with transformers"
            )
    return tokenizer
