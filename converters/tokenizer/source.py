"""The tokenizer of a checkpoint, as its own library runs it: what llama.cpp's has to agree with."""

from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from ...runtime.errors import ConversionError
from ..checkpoint.checkpoint import Checkpoint
from .added import AddedToken, read_added_tokens


class SourceTokenizer(Protocol):
    """Text to ids and back. Added tokens are found in the text; nothing is put before or after it."""

    added: list[AddedToken]
    description: dict[str, Any] | None
    """tokenizer.json, where there is one."""

    def encode(self, text: str) -> list[int]: ...

    def encode_with_special(self, text: str) -> list[int]:
        """As ``encode``, and with what the tokenizer puts around a text."""
        ...

    def decode(self, ids: list[int]) -> str: ...


def open_tokenizer(checkpoint: Checkpoint) -> SourceTokenizer:
    """By tokenizer.json, else by tokenizer.model. ConversionError when there is neither or it cannot be read."""
    if checkpoint.tokenizer_json is not None:
        return FastTokenizer(checkpoint)
    if checkpoint.tokenizer_model is not None:
        from .sentencepiece import SentencePieceTokenizer

        return SentencePieceTokenizer(checkpoint)
    raise ConversionError(
        f"{checkpoint.path} has neither tokenizer.json nor tokenizer.model: "
        f"save the tokenizer there with AutoTokenizer.from_pretrained(…).save_pretrained(…)"
    )


class FastTokenizer:
    """tokenizer.json, run by the tokenizers library. It is read on first use, which takes up to half a second."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.description: dict[str, Any] | None = checkpoint.tokenizer_json
        self.added = read_added_tokens(checkpoint)
        self._path = checkpoint.path / "tokenizer.json"

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_with_special(self, text: str) -> list[int]:
        return self._tokenizer.encode(text).ids

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = load_tokenizer(self._path)
        _add_missing(tokenizer, self.added)
        return tokenizer


def _add_missing(tokenizer: Any, added: list[AddedToken]) -> None:
    """Those that only tokenizer_config.json has; transformers adds them, too."""
    from tokenizers import AddedToken as Token

    for token in added:
        if tokenizer.token_to_id(token.text) is None:
            add = tokenizer.add_special_tokens if token.special else tokenizer.add_tokens
            add([Token(token.text, special=token.special, normalized=False)])
        if (found := tokenizer.token_to_id(token.text)) != token.id:
            raise ConversionError(
                f"the added token {token.text!r} should have the id {token.id} and gets {found}: "
                f"save the tokenizer again with transformers"
            )


def load_tokenizer(path: Path) -> Any:
    """A tokenizers.Tokenizer that neither cuts nor fills up texts. ConversionError when the library refuses it."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more particular
        raise ConversionError(f"{path} cannot be read: {error}; save the tokenizer again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
