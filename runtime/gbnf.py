"""Grammars from clients, checked before llama.cpp sees them: its parser recurses and expands without end."""

import re

from .errors import RequestError

MAX_DEPTH = 100
MAX_COPIES = 5_000
MAX_WORK = 20_000_000
"""Copies times the length of what may be copied."""

_OPAQUE = re.compile(r'"(\\.|[^"\\])*"|\[(\\.|[^\]\\])*\]|#[^\n]*', re.DOTALL)
_CONTROL = re.compile(r"[^\S \n\r\t]|[\x00-\x08\x0e-\x1f\x7f-\x9f]")
"""llama.cpp writes what it cannot parse to the terminal."""
_COUNTS = re.compile(r"\{([\d\s,]*)\}")


def checked_grammar(grammar: str, param: str = "grammar") -> str:
    """The grammar, if it is neither too deep nor repeats too much. Whether it is right the engine says."""
    if _CONTROL.search(grammar):
        raise RequestError(f"{param} has a control character: write it as an escape", param)
    bare = _OPAQUE.sub('""', grammar)
    if _depth(bare) > MAX_DEPTH:
        raise RequestError(f"{param} has more than {MAX_DEPTH} groups inside one another", param)
    counts = [int(number[:9]) for match in _COUNTS.finditer(bare) for number in re.findall(r"\d+", match[1])]
    if sum(counts) > MAX_COPIES or sum(counts) * len(grammar) > MAX_WORK:
        raise RequestError(f"{param} repeats more than a grammar can expand: allow any number instead", param)
    return grammar


def _depth(text: str) -> int:
    depth = deepest = 0
    for mark in re.findall(r"[()]", text):
        depth += 1 if mark == "(" else -1
        deepest = max(deepest, depth)
    return deepest
