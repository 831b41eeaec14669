"""The tokens of a model's folder by id, as its files describe them.

tokenizer.json counts; a folder with only tokenizer.model is read by the sentencepiece library.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ModelError
from ..json_file import read_json, read_optional_json
from ..safetensors_header import shown

TOKENIZER_JSON = "tokenizer.json"
TOKENIZER_MODEL = "tokenizer.model"


class AddedToken(NamedTuple):
    """A token that is found in a text before anything else is done with it. ``special``: it steers the model."""

    id: int
    text: str
    special: bool


@dataclass(frozen=True)
class FolderVocabulary:
    """``texts`` by id as the file writes them (None: an id without a token), ``added`` by id; ``first`` and ``last``
    are the ids put before and after a text. ``description`` is tokenizer.json, None where it was tokenizer.model."""

    path: Path
    texts: list[str | None]
    added: Mapping[int, AddedToken]
    first: tuple[int, ...]
    last: tuple[int, ...]
    description: dict[str, Any] | None
    unknown: str | None = None
    """What stands for characters that have no token. It says nothing to the model, so it is no control token."""

    @property
    def size(self) -> int:
        return len(self.texts)

    def text(self, token_id: int) -> str | None:
        """The token as the file writes it; None for an id that has none."""
        return self.texts[token_id] if 0 <= token_id < len(self.texts) else None

    def id_of(self, text: str) -> int | None:
        """The id of the token that is written so."""
        return self._ids.get(text)

    @cached_property
    def control(self) -> dict[str, int]:
        """The control tokens by text."""
        return {token.text: token.id for token in self.added.values() if token.special and token.text != self.unknown}

    @cached_property
    def _ids(self) -> dict[str, int]:
        ids = {text: token_id for token_id, text in enumerate(self.texts) if text is not None}
        return ids | {token.text: token.id for token in self.added.values()}


def read_vocabulary(folder: Path) -> FolderVocabulary | None:
    """The folder's tokenizer; None where it has none. ModelError when it is damaged."""
    config = read_optional_json(folder / "tokenizer_config.json")
    if (folder / TOKENIZER_JSON).is_file():
        return _described(folder / TOKENIZER_JSON, config)
    if (folder / TOKENIZER_MODEL).is_file():
        from .sentencepiece import read_pieces

        return read_pieces(folder / TOKENIZER_MODEL, config)
    return None


def _described(path: Path, config: Mapping[str, Any]) -> FolderVocabulary:
    description = read_json(path)
    try:
        added = {token.id: token for token in _added_tokens(description, config)}
        texts = _texts(description["model"]["vocab"], added)
        ids = {token.text: token.id for token in added.values()}
        first, last = _surroundings(description.get("post_processor"), config, ids)
        unknown = _unknown(description, texts)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({type(error).__name__}: {error}): download it again") from error
    return FolderVocabulary(path, texts, added, first, last, description, unknown)


def _texts(vocab: Any, added: Mapping[int, AddedToken]) -> list[str | None]:
    """A BPE's vocabulary maps texts to ids; a Unigram's is a list of texts with scores."""
    if isinstance(vocab, list):
        by_id = {token_id: str(entry[0]) for token_id, entry in enumerate(vocab)}
    else:
        by_id = {_checked_id(token_id): text for text, token_id in vocab.items()}
    by_id |= {token.id: token.text for token in added.values()}
    size = max(by_id, default=-1) + 1
    if size > 2 * len(by_id) + 65_536:
        raise ValueError(f"{len(by_id)} tokens have ids up to {size - 1}")
    return [by_id.get(token_id) for token_id in range(size)]


def _unknown(description: Mapping[str, Any], texts: list[str | None]) -> str | None:
    """Only SentencePiece's vocabularies have such a token; bytes can write everything."""
    if is_byte_level(description):
        return None
    model = description["model"]
    number = model.get("unk_id")
    return texts[number] if type(number) is int and 0 <= number < len(texts) else token_text(model.get("unk_token"))


def is_byte_level(description: Mapping[str, Any]) -> bool:
    """Whether tokens are written in GPT-2's alphabet for bytes."""
    parts = (("decoder", "decoders"), ("pre_tokenizer", "pretokenizers"), ("normalizer", "normalizers"))
    return any(
        step.get("type") == "ByteLevel" for part, key in parts for step in flat_steps(description.get(part), key)
    )


def flat_steps(node: Mapping[str, Any] | None, children: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a part of tokenizer.json in order, out of however many sequences they are packed into."""
    if not node:
        return
    if node.get("type") != "Sequence":
        yield node
        return
    for child in node.get(children) or []:
        yield from flat_steps(child, children)


def _checked_id(value: Any) -> int:
    number = int(value)
    if number < 0:
        raise ValueError(f"a token has the id {number}")
    return number


def added_entries(config: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    """The added tokens that tokenizer_config.json has, by id. transformers adds those that tokenizer.json lacks."""
    entries = config.get("added_tokens_decoder")
    return {_checked_id(key): entry for key, entry in entries.items()} if isinstance(entries, dict) else {}


def added_token(token_id: int, entry: Mapping[str, Any]) -> AddedToken:
    """ValueError for one without a text."""
    text = entry["content"]
    if not isinstance(text, str) or not text:
        raise ValueError(f"the added token {token_id} has the text {shown(text)}")
    return AddedToken(token_id, text, entry.get("special") is True)


def _added_tokens(description: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[AddedToken]:
    own = {_checked_id(entry["id"]): entry for entry in description.get("added_tokens") or []}
    for token_id, entry in sorted({**added_entries(config), **own}.items()):
        yield added_token(token_id, entry)


def _surroundings(
    processor: Mapping[str, Any] | None, config: Mapping[str, Any], ids: Mapping[str, int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What is put before and after a text: by the post-processor, else by the flags in tokenizer_config.json."""
    if processor is None:
        return flagged(config, "bos", ids), flagged(config, "eos", ids)
    first: tuple[int, ...] = ()
    last: tuple[int, ...] = ()
    for step in processor.get("processors") or [processor]:
        if step.get("type") == "TemplateProcessing":
            first, last = _template_ends(step)
        elif step.get("type") in ("RobertaProcessing", "BertProcessing"):
            first, last = (step["cls"][1],), (step["sep"][1],)
    return first, last


def flagged(config: Mapping[str, Any], name: str, ids: Mapping[str, int], default: bool = False) -> tuple[int, ...]:
    """The bos or eos token where its ``add_…_token`` says that it is added."""
    text = token_text(config.get(f"{name}_token"))
    is_added = config.get(f"add_{name}_token", default) is True
    return (ids[text],) if is_added and text is not None and text in ids else ()


def token_text(value: Any) -> str | None:
    """The text of a token as tokenizer_config.json declares one: itself, or an object with its content."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) and found else None


def _template_ends(step: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    single = step.get("single") or []
    text_idx = next((idx for idx, piece in enumerate(single) if "Sequence" in piece), len(single))
    special = step.get("special_tokens") or {}

    def ids_of(pieces: list[Any]) -> tuple[int, ...]:
        return tuple(number for piece in pieces for number in special[piece["SpecialToken"]["id"]]["ids"])

    return ids_of(single[:text_idx]), ids_of(single[text_idx + 1 :])
