"""Which tokens begin, end and fill a text, and which of them the tokenizer puts there by itself."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ...runtime.errors import ConversionError
from ..checkpoint.checkpoint import Checkpoint
from .vocabulary import SPECIAL_KEYS


class Surroundings(NamedTuple):
    """What a tokenizer puts before and after a text: the texts of tokens. None: it does not say."""

    first: str | None
    last: str | None
    is_declared: bool


def special_text(checkpoint: Checkpoint, name: str) -> str | None:
    """The text of the ``bos``, ``eos`` … token by tokenizer_config.json, else special_tokens_map.json."""
    for source in (checkpoint.tokenizer_config, checkpoint.special_tokens_map):
        found = source.get(f"{name}_token")
        if isinstance(found, dict):
            found = found.get("content")
        if isinstance(found, str) and found:
            return found
    return None


def special_ids(checkpoint: Checkpoint, id_of: Callable[[str], int | None], num_tokens: int) -> dict[str, int]:
    """The ids of the special tokens: by their text where the tokenizer names one, else by config.json.

    A tokenizer.json whose tokenizer_config.json names no bos has none: templates write nothing for it then.
    """
    has_no_bos = bool(checkpoint.tokenizer_config) and checkpoint.tokenizer_json is not None
    found: dict[str, int] = {}
    for name in SPECIAL_KEYS:
        text = special_text(checkpoint, name)
        token_id = id_of(text) if text is not None else None
        if token_id is None and not (name == "bos" and text is None and has_no_bos):
            token_id = config_id(checkpoint.config, name)
        if token_id is not None and 0 <= token_id < num_tokens:
            found[name] = token_id
    return found


def config_id(config: dict[str, Any], name: str) -> int | None:
    """What config.json, or its text model's part, says the id is; the first of several."""
    text_config = config.get("text_config")
    for source in (config, text_config if isinstance(text_config, dict) else {}):
        found = source.get(f"{name}_token_id")
        found = found[0] if isinstance(found, list) and found else found
        if isinstance(found, int) and not isinstance(found, bool):
            return found
    return None


def surroundings(checkpoint: Checkpoint) -> Surroundings:
    """By tokenizer.json's post-processor, else by the flags in tokenizer_config.json."""
    processor = (checkpoint.tokenizer_json or {}).get("post_processor")
    if not isinstance(processor, dict):
        return Surroundings(_flagged(checkpoint, "bos"), _flagged(checkpoint, "eos"), False)
    first = last = None
    for step in processor.get("processors") or [processor]:
        if step.get("type") == "TemplateProcessing":
            first, last = _template_ends(step.get("single") or [])
        elif step.get("type") in ("RobertaProcessing", "BertProcessing"):
            first, last = step["cls"][0], step["sep"][0]
    return Surroundings(first, last, True)


def _flagged(checkpoint: Checkpoint, name: str) -> str | None:
    is_sentencepiece = checkpoint.tokenizer_json is None
    default = is_sentencepiece and name == "bos"  # as Llama's and Gemma's tokenizer classes have it
    return special_text(checkpoint, name) if checkpoint.tokenizer_config.get(f"add_{name}_token", default) else None


def _template_ends(single: list[Any]) -> tuple[str | None, str | None]:
    pieces = [piece.get("SpecialToken", {}).get("id") for piece in single]
    text_idx = next((i for i, piece in enumerate(single) if "Sequence" in piece), len(pieces))
    before, after = pieces[:text_idx], pieces[text_idx + 1 :]
    if len(before) > 1 or len(after) > 1:
        raise ConversionError(
            f"the tokenizer puts {before} before and {after} after a text, and GGUF has room for one token each: "
            f"change the post_processor in tokenizer.json"
        )
    return (before or [None])[0], (after or [None])[0]


def mark_ends(
    ends: Surroundings, special: dict[str, int], id_of: Callable[[str], int | None]
) -> tuple[bool, bool, dict[str, int]]:
    """Whether bos and eos are added, and ``special`` with the bos that really is.

    Refused is a last token that is not eos: to declare it eos would change where the model stops.
    """
    first = id_of(ends.first) if ends.first is not None else None
    last = id_of(ends.last) if ends.last is not None else None
    if first is not None:
        special = special | {"bos": first}
    if last is not None and special.setdefault("eos", last) != last:
        raise ConversionError(
            f"the tokenizer ends every text with {ends.last!r}, which is not its eos token: "
            f"GGUF can add only eos; change the post_processor in tokenizer.json"
        )
    return first is not None, last is not None, special
