"""From pydantic's list of what is wrong to one line that names the parameter."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ApiError, bad_request

MAX_VALUE_CHARS = 60

_WORDS = {
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} item",
    "too_long": "must have at most {max_length} items",
    "string_too_short": "must have at least {min_length} character",
    "string_too_long": "must have at most {max_length} characters",
    "union_tag_not_found": "must say which type it is",
    "union_tag_invalid": "must have one of the types {expected_tags}",
}


def validation_error(errors: Sequence[Mapping[str, Any]], body: Any) -> ApiError:
    """The first error as a 400."""
    error = errors[0]
    loc = error["loc"][1:]
    where = dotted(loc, body)
    if not loc:
        return bad_request("the body must be a JSON object", code="invalid_type")
    if error["type"] == "extra_forbidden":
        message = f"{where or 'an empty name'} is not a parameter that is known or supported here: leave it out"
        return bad_request(message, where, "unknown_parameter")
    if error["type"] == "missing":
        return bad_request(f"{where} is missing", where, "missing_parameter")
    return bad_request(f"{where} {_complaint(error)}", where)


def dotted(loc: Sequence[str | int], body: Any) -> str:
    """The path of a value in the body, such as ``messages[0].role``.

    Pydantic also puts the branches of unions into the path: whatever is not there in the body is left out,
    unless it is the end of the path and so what is missing.
    """
    path, value = "", body
    for idx, step in enumerate(loc):
        is_last = idx == len(loc) - 1
        if isinstance(value, list) and isinstance(step, int):
            path += f"[{step}]"
            value = value[step] if step < len(value) else None
        elif isinstance(value, dict) and (step in value or _is_field(step, is_last)):
            path += f".{str(step)[:MAX_VALUE_CHARS]}"
            value = value.get(step)
    return path.removeprefix(".")


def _is_field(step: str | int, is_last: bool) -> bool:
    """Our own names for branches are in brackets."""
    return is_last and not str(step).startswith("(")


def _complaint(error: Mapping[str, Any]) -> str:
    words = _WORDS.get(error["type"])
    if error["type"] == "none_required":
        return "is not supported here: leave it out"
    if words is None:
        # Our own validators speak in whole sentences; so does pydantic about the rest.
        return str(error["msg"])
    context = {name: _in_json_words(value) for name, value in error.get("ctx", {}).items()}
    given = context.get("tag", error["input"])
    return f"{words.format(**context)}, not {_short(given)}"


def _in_json_words(value: Any) -> Any:
    words = {"True": "true", "False": "false", "None": "null"}
    return words.get(value, value) if isinstance(value, str) else value


def _short(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = json.dumps(value[:MAX_VALUE_CHARS] if isinstance(value, str) else value, ensure_ascii=False)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}…"
