"""Whether llama.cpp makes the same tokens out of a text as the tokenizer that the model was trained with."""

import ctypes
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ...runtime.engines.base import Tokenizer
from ...runtime.engines.llamacpp.library import last_error, llama
from ...runtime.errors import ConversionError
from ...runtime.tokenizer.vocabulary import flat_steps
from .corpus import corpus
from .sentencepiece import space_prefix
from .source import SourceTokenizer

_SHOWN_IDS = 12
_ANYWAY = " (--no-verify converts nevertheless)"
_HARMLESS = ("NFC", "Replace", "Prepend", "ByteLevel")


@dataclass(frozen=True)
class TokenizerReport:
    """What was compared. ``notes``: what llama.cpp leaves to whoever calls it, in a sentence each. ``problem``: the
    first difference, where one is told and not raised."""

    texts: int
    tokens: int
    notes: tuple[str, ...] = ()
    problem: str | None = None


def check_tokenizer(source: SourceTokenizer, gguf: Path, extra: Sequence[str]) -> TokenizerReport:
    """Compare over the corpus, the added tokens and ``extra`` (stop strings). ConversionError at the first difference.

    ``gguf`` may be a file without tensors: only its vocabulary is loaded.
    """
    domain = _Domain(source)
    texts = tokens = 0
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(GGUFTokenizer, gguf)
        try:
            source.encode("")  # both load at the same time
        finally:
            target = loading.result()
    with target:
        domain.fit(target)
        for text in corpus([token.text for token in source.added], extra):
            text = domain.text(text)
            if not domain.has(text):
                continue
            wanted, made = domain.encode(text), target.encode(text)
            if wanted != made and not domain.excuses(made, target):
                raise ConversionError(_difference(text, wanted, made) + _ANYWAY + domain.reason)
            texts, tokens = texts + 1, tokens + len(made)
        _check_ends(source, target)
    return TokenizerReport(texts, tokens, tuple(domain.notes))


def check_same_tokenizer(source: SourceTokenizer, target: Tokenizer, extra: Sequence[str]) -> TokenizerReport:
    """The same for a folder, whose tokenizer is to be the source's own. The first difference is in the report."""
    texts = tokens = 0
    for text in corpus([token.text for token in source.added], extra):
        wanted, made = source.encode(text), target.encode(text)
        if wanted == made:
            wanted, made = source.encode_with_special(text), target.encode(text, add_special=True)
        if wanted != made:
            problem = _difference(text, wanted, made, "the artifact's tokenizer")
            return TokenizerReport(texts, tokens, problem=problem)
        texts, tokens = texts + 1, tokens + len(made)
    return TokenizerReport(texts, tokens)


class _Domain:
    """The texts on which the two can agree at all, and what to say about the others."""

    def __init__(self, source: SourceTokenizer) -> None:
        self._source = source
        self._added_ids = {token.id for token in source.added}
        description = source.description or {}
        normalizers = [step.get("type", "?") for step in flat_steps(description.get("normalizer"), "normalizers")]
        self._prefix = space_prefix(description)
        self._is_composed = "NFC" in normalizers
        self._lead = ""
        self._is_bare = False
        self.notes: list[str] = []
        lost = [name for name in normalizers if name not in _HARMLESS]
        self.reason = f"; llama.cpp does not have its normalizer {', '.join(lost)}" if lost else ""
        if self._is_composed:
            self.notes.append("the tokenizer composes characters (NFC) and llama.cpp does not: send text in NFC")

    def fit(self, target: "GGUFTokenizer") -> None:
        """A space that is added only where the whole text begins is added by llama.cpp everywhere or nowhere."""
        if self._prefix != "first":
            return
        self._is_bare = target.encode("a") == self._source.encode("a")
        self._lead = "" if self._is_bare else next((added.text for added in self._source.added if added.special), "")
        self.notes.append(
            "the tokenizer puts a space before a text that does not begin with a special token; llama.cpp "
            + ("puts one after every special token, too" if self._is_bare else "does not: begin with the bos token")
        )

    def text(self, text: str) -> str:
        return unicodedata.normalize("NFC", text) if self._is_composed else text

    def has(self, text: str) -> bool:
        return not self._is_bare or not (text[:1].isspace() or any(added.text in text for added in self._source.added))

    def excuses(self, made: list[int], target: "GGUFTokenizer") -> bool:
        """llama.cpp takes some names (``</s>``, ``<EOT>`` …) for control tokens wherever a vocabulary has them."""
        claimed = {token_id for token_id in made if token_id not in self._added_ids and target.is_control(token_id)}
        for token_id in sorted(claimed):
            note = f"llama.cpp takes the ordinary token {target.text(token_id)!r} for a control token, by its name"
            if note not in self.notes:
                self.notes.append(note)
        return bool(claimed)

    def encode(self, text: str) -> list[int]:
        return self._source.encode(self._lead + text)[1:] if self._lead else self._source.encode(text)


def _check_ends(source: SourceTokenizer, target: "GGUFTokenizer") -> None:
    if source.description is not None and not source.description.get("post_processor"):
        return
    wanted, made = source.encode_with_special("Hello"), target.encode("Hello", add_special=True)
    bare = source.encode("Hello"), target.encode("Hello")
    if (len(wanted) - len(bare[0]), wanted[:1], wanted[-1:]) != (len(made) - len(bare[1]), made[:1], made[-1:]):
        raise ConversionError(f"with what is added around a text, {_difference('Hello', wanted, made)}{_ANYWAY}")


def _difference(text: str, wanted: list[int], made: list[int], who: str = "llama.cpp") -> str:
    at = next((i for i, pair in enumerate(zip(wanted, made, strict=False)) if pair[0] != pair[1]), 0)
    start = max(0, at - 2)
    shown = text if len(text) <= 120 else text[:117] + "..."
    here, there = (str(ids[start : start + _SHOWN_IDS]) for ids in (wanted, made))
    return (
        f"{who} makes other tokens than the checkpoint's tokenizer out of {shown!r}: "
        f"from token {start} on {there} instead of {here}"
    )


class GGUFTokenizer:
    """The tokenizer in a GGUF file, as llama.cpp runs it; the model itself is not loaded. Close it."""

    def __init__(self, path: Path) -> None:
        self._lib = lib = llama()
        params = lib.llama_model_default_params()
        params.vocab_only = True
        self._model: Any = lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise ConversionError(f"llama.cpp cannot load the vocabulary that was made ({path}): {last_error()}")
        self._vocab: Any = lib.llama_model_get_vocab(self._model)

    def encode(self, text: str, *, add_special: bool = False) -> list[int]:
        """Ids of ``text``; special tokens in it are found."""
        data = text.encode("utf-8", "replace")
        size = len(data) + 8
        while True:
            ids = (ctypes.c_int32 * size)()
            count = self._lib.llama_tokenize(self._vocab, data, len(data), ids, size, add_special, True)
            if count >= 0:
                return ids[:count]
            size = -count

    def is_control(self, token_id: int) -> bool:
        return bool(self._lib.llama_vocab_is_control(self._vocab, token_id))

    def text(self, token_id: int) -> str:
        """The token as the vocabulary writes it."""
        return self._lib.llama_vocab_get_text(self._vocab, token_id).decode("utf-8", "replace")

    def close(self) -> None:
        if self._model:
            self._lib.llama_model_free(self._model)
        self._model = self._vocab = None

    def __enter__(self) -> "GGUFTokenizer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
