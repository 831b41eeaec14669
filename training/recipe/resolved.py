"""A recipe back as TOML, with every value that holds: what is written beside the result, and can be run again."""

import json
import re
from collections.abc import Mapping
from typing import Any

from .schema import Recipe

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(recipe: Recipe) -> str:
    """TOML that reads back as the same recipe, without its small form. None is left out: it is everyone's default."""
    values = recipe.model_dump(mode="json", exclude_none=True, exclude={"small"})
    return "".join(_table(values, ())).lstrip("\n")


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    """Plain values first, as TOML wants it, then the tables in it."""
    plain = {key: value for key, value in table.items() if not _is_table(value) and not _is_tables(value)}
    lines = [f"{_key(key)} = {_value(value)}\n" for key, value in plain.items()]
    for key, value in table.items():
        name = ".".join(_key(part) for part in (*path, key))
        if _is_table(value):
            lines += [f"\n[{name}]\n", *_table(value, (*path, key))]
        elif _is_tables(value):
            for entry in value:
                lines += [f"\n[[{name}]]\n", *_table(entry, (*path, key))]
    return lines


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_table(entry) for entry in value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(_value(entry) for entry in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(key)} = {_value(entry)}' for key, entry in value.items())}}}"
    return repr(value)


def _text(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for the character DEL and lone surrogates."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
