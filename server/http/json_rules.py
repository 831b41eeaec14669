"""GBNF rules for JSON itself."""

import json
from collections.abc import Mapping
from typing import Any

_DATE = '[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])'
_CLOCK = '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9]'
_TIME = f'{_CLOCK} ":" [0-5] [0-9] ("." [0-9]{{1,6}})? ("Z" | [+-] {_CLOCK})'

FORMATS: Mapping[str, str] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f'{_DATE} "T" {_TIME}',
    "uuid": ' "-" '.join(f"[0-9a-f]{{{size}}}" for size in (8, 4, 4, 4, 12)),
}
"""What stands between the quotes of a string of some format."""

_BASE = {
    # A little white space: a model can lay out its answer, and cannot run away in blanks.
    "ws": r'(" " | "\n" " "{0,12})?',
    "char": r'[^"\\\x00-\x1f] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "string": r'"\"" char* "\""',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": 'integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "value": "object | array | string | number | boolean | null",
    "object": '"{" ws (string ":" ws value ("," ws string ":" ws value)* ws)? "}"',
    "array": '"[" ws (value ("," ws value)* ws)? "]"',
}


def grammar_text(rules: Mapping[str, str]) -> str:
    """The grammar of these rules, which may refer to those of JSON by the names of its types."""
    return "".join(f"{name} ::= {rule}\n" for name, rule in {**rules, **_BASE}.items())


def any_object_grammar() -> str:
    """The grammar of any JSON object."""
    return grammar_text({"root": "object"})


def literal(value: Any) -> str:
    """A JSON value, spelt as a GBNF literal."""
    text = json.dumps(value, ensure_ascii=False).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
