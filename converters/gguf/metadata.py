"""Metadata that is neither the architecture's nor the vocabulary's: what the model is, how its turn begins and ends,
and how to choose tokens.

The keys are those of the GGUF specification and of llama.cpp, and ``tapster.stop_strings`` because the format has none
for stop strings. A file names at most three tokens that end a turn (eos, eot, eom); llama.cpp adds those that it knows
by their text.
"""

import re
from collections.abc import Iterable, Sequence
from math import isfinite, prod
from typing import Any

import numpy as np

from ...runtime.chat.end_of_turn import derive_end_of_turn
from ...runtime.errors import ConversionError
from ..checkpoint.checkpoint import Checkpoint
from ..tokenizer.special import config_id
from ..tokenizer.vocabulary import SPECIAL_KEYS, TokenType, Vocabulary
from .plan import TensorPlan, Value
from .templates import compile_templates

STOP_STRINGS = "tapster.stop_strings"
_END_KEYS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
_ENDS_OF_TEXT = "<|endoftext|> <|end_of_text|> </s> <eos> [EOS] <｜end▁of▁sentence｜>"
_ENDS_OF_TURN = """<|im_end|> <|eot_id|> <|end|> <end_of_turn> <|return|> <|call|> <|flush|> <|calls|> <|eom_id|> <EOT>
    _<EOT> [EOT] <end_of_utterance> <turn|> <|tool_response> [e~["""
KNOWN_ENDS = tuple(f"{_ENDS_OF_TEXT} {_ENDS_OF_TURN}".split())
"""Tokens that llama.cpp takes for the end of a turn by their text (``llama-vocab.cpp``), ends of a whole text first."""

_SAMPLING: dict[str, tuple[str, type[np.float32] | type[np.int32]]] = {
    "temperature": ("temp", np.float32),
    "top_k": ("top_k", np.int32),
    "top_p": ("top_p", np.float32),
    "min_p": ("min_p", np.float32),
    "repetition_penalty": ("penalty_repeat", np.float32),
}
_SIZES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (0, "K"))


def general_metadata(checkpoint: Checkpoint, architecture: str, plans: Sequence[TensorPlan]) -> dict[str, Value]:
    """``general.*``: the name from the folder's, the rest from the model card's front matter."""
    card = checkpoint.card
    num_parameters = sum(prod(plan.shape) for plan in plans if plan.sources)
    values: dict[str, Value] = {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": _title(checkpoint.name),
        "general.size_label": size_label(num_parameters),
    }
    for key in ("license", "license_name", "license_link"):
        if texts := _texts(card.get(key)):
            values[f"general.{key}"] = ",".join(texts)
    if tags := [*_texts(card.get("tags")), *_texts(card.get("pipeline_tag"))]:
        values["general.tags"] = tags
    if languages := _texts(card.get("language")):
        values["general.languages"] = languages
    return values | _base_models(_texts(card.get("base_model")))


def _base_models(repos: list[str]) -> dict[str, Value]:
    """What the model was made from, as ``general.base_model.N.*``; only Hub ids are understood."""
    values: dict[str, Value] = {}
    hub_ids = [repo for repo in repos if re.fullmatch(r"[\w.-]+/[\w.-]+", repo)]
    for index, repo in enumerate(hub_ids):
        owner, _, name = repo.partition("/")
        prefix = f"general.base_model.{index}"
        values[f"{prefix}.name"] = _title(name)
        values[f"{prefix}.organization"] = _title(owner)
        values[f"{prefix}.repo_url"] = f"https://huggingface.co/{repo}"
    return {"general.base_model.count": len(hub_ids), **values} if hub_ids else {}


def _texts(value: Any) -> list[str]:
    """A text or a list of texts from a model card, which may hold anything."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str) and item]


def _title(name: str) -> str:
    """``smol-llama-v2`` as ``Smol Llama v2``: words begin with a capital, versions and sizes stay."""
    words = name.replace("-", " ").split()
    is_plain = re.compile(r"(v\d+(\.\d+)*|\d.*)$")
    return " ".join(word.title() if word.islower() and not is_plain.match(word) else word for word in words)


def size_label(num_parameters: int) -> str:
    """At least two digits and a letter: 135M, 1.3B, 27K."""
    unit, letter = next((unit, letter) for unit, letter in _SIZES if num_parameters > unit)
    scaled = num_parameters / (unit or 1e3)
    digits = len(str(round(scaled)).lstrip("0"))
    return f"{scaled:.{max(2 - digits, 0)}f}{letter}"


def sampling_metadata(generation: dict[str, Any], notes: list[str]) -> dict[str, Value]:
    """The defaults of generation_config.json as ``general.sampling.*``; what is no number is left out.

    So is a number that the key's type cannot hold, of which ``notes`` then tell.
    """
    values: dict[str, Value] = {}
    for name, (key, kind) in _SAMPLING.items():
        value = generation.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if _fits(value, kind):
            values[f"general.sampling.{key}"] = kind(value)
        else:
            notes.append(f"generation_config.json has {name} = {value}, which GGUF cannot hold: it is left out")
    return values


def _fits(value: float, kind: type[np.float32] | type[np.int32]) -> bool:
    """Whether the type has this number, floats rounded."""
    if isinstance(value, float) and not isfinite(value):
        return False
    if kind is np.int32:
        return value == int(value) and abs(value) < 1 << 31
    return abs(value) <= float(np.finfo(np.float32).max)


def start_metadata(
    checkpoint: Checkpoint, vocabulary: Vocabulary, stops: dict[str, Value], notes: list[str]
) -> dict[str, Value]:
    """A bos for a tokenizer that has none, since llama.cpp would take whatever token has a certain id.

    config.json's, or the eos of ``stops``. Where a template writes bos, a token would be wrong and none is told.
    """
    if "bos" in vocabulary.special:
        return {}
    if any("bos_token" in source for source in checkpoint.chat_templates.values()):
        notes.append("the tokenizer has no bos token and the chat template writes it: llama.cpp takes some other there")
        return {}
    bos = config_id(checkpoint.config, "bos")
    if bos is not None and 0 <= bos < len(vocabulary.tokens):
        return {SPECIAL_KEYS["bos"]: bos}
    return {SPECIAL_KEYS["bos"]: stops[_END_KEYS[0]]}


def stop_metadata(checkpoint: Checkpoint, vocabulary: Vocabulary, notes: list[str]) -> dict[str, Value]:
    """How a turn ends: up to three token ids, and stop strings. What does not fit is added to ``notes``.

    The union of what generation_config.json (else config.json), the tokenizer and the chat template say. A token for
    which there is no key becomes a stop string: programs that read that key stop there, too. ConversionError when
    nothing tells an id, for llama.cpp would then take one that means something else.
    """
    strings = _declared_strings(checkpoint.generation_config)
    ids = _declared_ids(checkpoint, vocabulary)
    end_of_turn = _end_of_turn(checkpoint, vocabulary)
    end_id = _single_token(vocabulary, end_of_turn) if end_of_turn else None
    if end_id is not None and end_id not in ids:
        ids.append(end_id)
    elif end_of_turn and end_id is None and end_of_turn not in strings:
        strings.append(end_of_turn)
    keyed, others = _assign(ids or [_known_end(vocabulary)], end_id, vocabulary)
    unknown = [vocabulary.tokens[token_id] for token_id in others if vocabulary.tokens[token_id] not in KNOWN_ENDS]
    if unknown:
        notes.append(f"GGUF names three tokens that end a turn; {', '.join(unknown)} ends it in tapster only")
        strings += [text for text in unknown if text not in strings]
    values: dict[str, Value] = dict(zip(_END_KEYS, keyed, strict=False))
    return values | ({STOP_STRINGS: strings} if strings else {})


def _declared_strings(generation: dict[str, Any]) -> list[str]:
    found = generation.get("stop_strings") or []
    strings = [found] if isinstance(found, str) else found
    if not isinstance(strings, list) or not all(isinstance(text, str) and text for text in strings):
        raise ConversionError(f"generation_config.json has stop_strings = {found!r}, no list of texts")
    return list(dict.fromkeys(strings))


def _declared_ids(checkpoint: Checkpoint, vocabulary: Vocabulary) -> list[int]:
    """The ids in their order, each once. ConversionError for one that the vocabulary does not have.

    The first becomes eos, which templates write: it has to be the tokenizer's where one does, or where it is declared.
    """
    own = _tokenizer_end(vocabulary)
    is_written = any("eos_token" in source for source in checkpoint.chat_templates.values())
    for file, config in (("generation_config.json", checkpoint.generation_config), ("config.json", checkpoint.config)):
        declared = config.get("eos_token_id")
        if declared is None:
            continue
        ids = declared if isinstance(declared, list) else [declared]
        for token_id in ids:
            if type(token_id) is not int or not 0 <= token_id < len(vocabulary.tokens):
                raise ConversionError(
                    f"{file} has eos_token_id = {declared!r}, and the vocabulary has the ids 0 to "
                    f"{len(vocabulary.tokens) - 1}"
                )
        return list(dict.fromkeys([*own, *ids] if is_written or {*own} <= {*ids} else [*ids, *own]))
    return own


def _tokenizer_end(vocabulary: Vocabulary) -> list[int]:
    return [vocabulary.special["eos"]] if "eos" in vocabulary.special else []


def _known_end(vocabulary: Vocabulary) -> int:
    """Where nothing is declared: a token that llama.cpp takes for an end anyway. ConversionError without one."""
    found = next((token_id for text in KNOWN_ENDS if (token_id := vocabulary.id_of(text)) is not None), None)
    if found is None:
        raise ConversionError("no end-of-sequence id: give one in generation_config.json (eos_token_id)")
    return found


def _end_of_turn(checkpoint: Checkpoint, vocabulary: Vocabulary) -> str | None:
    """What the default chat template writes after an answer. ConversionError when one of them is no template."""
    bos, eos = (_text_of(vocabulary, name) for name in ("bos", "eos"))
    template = compile_templates(checkpoint, bos, eos).get("default")
    return derive_end_of_turn(template) if template else None


def _text_of(vocabulary: Vocabulary, name: str) -> str | None:
    token_id = vocabulary.special.get(name)
    return None if token_id is None else vocabulary.tokens[token_id]


def _single_token(vocabulary: Vocabulary, text: str) -> int | None:
    """The id of ``text`` where it is always one token: a plain token may also come in pieces."""
    token_id = vocabulary.id_of(text)
    is_whole = token_id is not None and vocabulary.types[token_id] in (TokenType.CONTROL, TokenType.USER_DEFINED)
    return token_id if is_whole else None


def _assign(ids: list[int], end_id: int | None, vocabulary: Vocabulary) -> tuple[list[int], Iterable[int]]:
    """Ids for eos, eot and eom, and those that are left.

    The first stays the first; the template's end of turn comes next, then those that llama.cpp would not know.
    """
    first, rest = ids[:1], ids[1:]
    rest.sort(key=lambda token_id: (token_id != end_id, vocabulary.tokens[token_id] in KNOWN_ENDS))
    return first + rest[:2], rest[2:]
