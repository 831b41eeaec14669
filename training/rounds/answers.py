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
_BULLET = re.compile(r"^\s*[-+*−•]\s", re.MULTILINE)
_NUMBER = re.compile(
    r"(?P<sign>[-+−]?)\s?\$?\s?"
    r"(?:(?P<whole>\d+) +(?=\d+\s?/\s?\d))?"
    r"(?P<rest>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+|\s?/\s?\d+)?|\.\d+)(?:\s?%)?"
)
_UNIT = re.compile(
    r"\s*(?:[°€£]\s?[A-Z]?|(?!(?:[ap]m|pi|dozen|hundred|thousand|[mb]illion)\b)[^\W\d_]{2,}(?:/[^\W\d_]+)?)?[.\s]*",
    re.IGNORECASE,
)
"""What may stand behind a number without changing which number it is. Not one letter, which may be a variable."""
_LETTER = re.compile(r"(?<![A-Za-z])\(?([A-Za-z])\)?(?![A-Za-z'’])")
_CHOICE = re.compile(r"\([A-Za-z]\)|[A-Za-z](?:[.):]\s|[.):]?$)")
_FEW_WORDS = 5


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


def checker_of(gold: str) -> Checker | None:
    """The checker that suits a right answer: a number, perhaps with its unit; the letter of a choice; or a few words,
    among them times, ranges, powers and formulas. None for a longer one, which nobody would say in the same words."""
    gold = gold.strip()
    number = _NUMBER.match(gold)
    if number and _UNIT.fullmatch(gold, number.end()):
        return "number"
    if _CHOICE.match(gold):
        return "letter"
    return "exact" if read_exact(gold) and len(gold.split()) <= _FEW_WORDS else None


def read_number(text: str) -> Fraction | None:
    """The first number behind the last equals sign, exactly: signs, thousands, decimals, fractions, ``1 1/2``, per cent
    and dollars are understood. A dash that begins a line and stands alone is no sign: it begins an item of a list."""
    match = _NUMBER.search(_BULLET.sub("", text).rpartition("=")[2])
    if match is None:
        return None
    whole, rest = (re.sub(r"[\s,]", "", match[part] or "0") for part in ("whole", "rest"))
    try:
        value = Fraction(whole) + Fraction(rest)
    except ZeroDivisionError:
        return None
    return -value if match["sign"] in ("-", "−") else value


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
