"""The tokens that were added to a vocabulary: found in a text before anything else is done with it."""

import json
from typing import Any, NamedTuple

from ...runtime.errors import ConversionError
from ..checkpoint.checkpoint import Checkpoint


class AddedToken(NamedTuple):
    """``special`` tokens steer the model (a turn's end); the others are ordinary text with a row of their own."""

    id: int
    text: str
    special: bool
    is_normalized: bool = False


def read_added_tokens(checkpoint: Checkpoint) -> list[AddedToken]:
    """By id: tokenizer.json's, then those that only tokenizer_config.json or added_tokens.json know."""
    found: dict[int, AddedToken] = {}
    for token in (checkpoint.tokenizer_json or {}).get("added_tokens") or []:
        _put(found, token.get("id"), token, "tokenizer.json")
    known = {str(token_id) for token_id in found}
    for token_id, token in (checkpoint.tokenizer_config.get("added_tokens_decoder") or {}).items():
        if token_id not in known:
            _put(found, token_id, token, "tokenizer_config.json")
    texts = {token.text for token in found.values()}
    for text, token_id in _added_tokens_file(checkpoint).items():
        if text not in texts:
            _put(found, token_id, {"content": text}, "added_tokens.json")
    return [found[token_id] for token_id in sorted(found)]


def _put(found: dict[int, AddedToken], token_id: Any, token: Any, where: str) -> None:
    text = token.get("content") if isinstance(token, dict) else None
    try:
        number = int(token_id)
    except (TypeError, ValueError):
        number = -1
    if number < 0 or not isinstance(text, str) or not text:
        raise ConversionError(f"{where} has an added token without a text or an id: {str(token)[:80]}")
    found[number] = AddedToken(number, text, bool(token.get("special")), bool(token.get("normalized")))


def _added_tokens_file(checkpoint: Checkpoint) -> dict[str, Any]:
    path = checkpoint.path / "added_tokens.json"
    if checkpoint.tokenizer_json is not None or not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConversionError(f"{path} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}
