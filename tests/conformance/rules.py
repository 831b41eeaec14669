"""The rules of text that a server has to keep, and how a broken one is reported."""

from collections.abc import Sequence
from typing import NoReturn

import pytest

RULES = {
    1: "stops are found in the text, however it was cut into tokens",
    2: "only what may become a stop is held back, everything else is sent with its token",
    3: "the earliest stop wins, of two that start together the longest",
    4: "a request's stops are added to the model's own, they never replace them",
    5: "the end of turn of the chat template ends the answer and is not part of it",
    6: "a request's stops apply to what the user sees, not inside reasoning",
    7: "the end of an answer and its length limit release what was held back; a stop drops it",
    8: "a streamed answer is the whole answer, byte for byte",
    9: "text, tokens, log-probabilities and usage end at the same place",
    10: "a stop ends the work at once, and what came before it is reused by a later prompt",
    11: "bytes that are no character yet wait for the rest",
    12: "many and long stops change nothing but where the answer ends",
}


def broken(rule: int, what: str, **seen: object) -> NoReturn:
    """Fail with the rule, what happened, and everything seen."""
    width = max(map(len, seen), default=0)
    lines = [f"  {name.replace('_', ' '):{width}}  {value!r}" for name, value in seen.items()]
    pytest.fail("\n".join([f"rule {rule} is broken: {what}", f"  ({RULES[rule]})", *lines]), pytrace=False)


def same_text(rule: int, wanted: str, got: str, stops: Sequence[str] | str | None, **seen: object) -> None:
    """The answer has to be this text."""
    if got == wanted:
        return
    if got.startswith(wanted):
        what = "the answer goes on after its end"
    elif wanted.startswith(got):
        what = "the answer is cut too early"
    else:
        what = "the answer is another one"
    broken(rule, what, stop=stops, wanted=wanted, got=got, **seen)
