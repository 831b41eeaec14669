"""What a sampled answer says: its rationale and, apart from it, the answer itself; and whether that is right."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Checker = Literal["number", "letter", "exact"]

_MARK = re.compile(r"#{2,}\s*(?:final\s+)?answer\s*:?|####|\b(?:final\s+)?answer\s*(?::|\bis\b\s*:?)", re.IGNORECASE)
_LEADING = re.compile(r"\s*#{2,}\s*rationale\s*:?\s*", re.IGNORECASE)
_NUMBER = re.compile(r"[-+−]?\s?\$?\s?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d)(?:\s?/\s?\d+)?)(?:\s?%)?")
_LETTER = re.compile(r"(?<![A-Za-z])\(?([A-Za-z])\)?(?![A-Za-z'’])")


@dataclass(frozen=True, slots=True)
class Worked:
    """An answer with the way to it, neither of them empty; ``text`` is all that was said."""

    rationale: str
    answer: str
    text: str


def split_answer(content: str, reasoning: str = "") -> Worked | None:
    """The rationale, and the answer behind the last mark (``### Answer:``, ``####``, ``the answer is``). Without a mark
    the last line is the answer; ``reasoning`` is a rationale that came apart. None where one of the two is missing."""
    *_, mark = [None, *_MARK.finditer(content)]
    if mark is not None:
        before, after = content[: mark.start()], content[mark.end() :]
    elif reasoning.strip():
        before, after = "", content
    else:
        before, _, after = content.strip().rpartition("\n")
    rationale = reasoning.strip() or _LEADING.sub("", before, count=1).strip()
    answer = after.strip()
    return Worked(rationale, answer, content.strip()) if rationale and answer else None


def is_right(answer: str, gold: str, checker: Checker) -> bool:
    """Whether ``answer`` says the same as ``gold``. An answer that cannot be read is wrong."""
    found, expected = (_READERS[checker](text) for text in (answer, gold))
    return expected is not None and found == expected


def can_check(gold: str, checker: Checker) -> bool:
    """Whether the gold answer is one that this checker reads."""
    return _READERS[checker](gold) is not None


def read_number(text: str) -> Fraction | None:
    """The first number behind the last equals sign, exactly: signs, thousands, decimals, fractions, per cent and
    dollars are understood."""
    text = text.rpartition("=")[2]
    match = next((match for match in _NUMBER.finditer(text) if any(char.isdigit() for char in match[0])), None)
    if match is None:
        return None
    digits = re.sub(r"[\s$,%+]", "", match[0]).replace("−", "-")
    try:
        return Fraction(digits)
    except (ValueError, ZeroDivisionError):
        return None


def read_letter(text: str) -> str | None:
    """The first letter that stands alone: ``B``, ``(b)``, ``b.``. "A" and "I" before a word are words."""
    for match in _LETTER.finditer(text):
        is_word = match[0] in ("a", "A", "I") and re.match(r"\s+[a-z]", text[match.end() :])
        if not is_word:
            return match[1].upper()
    return None


def read_exact(text: str) -> str | None:
    """The text without differences of case, space and a full stop."""
    return " ".join(text.casefold().split()).rstrip(".!").strip() or None


_READERS: dict[Checker, Callable[[str], Fraction | str | None]] = {
    "number": read_number,
    "letter": read_letter,
    "exact": read_exact,
}
