"""The text that ends an assistant's turn, worked out from the chat template.

An unmistakable word is rendered as the assistant's answer, once at the end of a conversation and once with a
user's turn behind it. What follows the word is what the model has learnt to write when it is done.
"""

import re
from collections.abc import Iterator
from itertools import takewhile

from ..errors import RequestError
from .messages import Message
from .template import ChatTemplate

_ANSWER = "Zq4answer7Kd"
_NEXT = "Zq4next7Kd"
_MARKER = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")


def derive_end_of_turn(template: ChatTemplate) -> str | None:
    """The end of an assistant's turn without the white space around it; None where the template tells none.

    Where nothing follows the last answer (Alpaca), the header of the next user's turn ends it: a model
    without an end of its own goes on to write that.
    """
    candidates = _candidates(_after_last_answer(template), _between_turns(template))
    return next((text for text in candidates if _is_specific(text)), None)


def _candidates(tail: str | None, between: str | None) -> Iterator[str]:
    """What may end the turn, the best first.

    Where both renderings begin alike, that is the end of the turn: what follows is the next header here, and
    there something that closes the conversation, such as ``<|endoftext|>`` or a footer. Where they differ
    from the start, a marker at the end of the conversation is what the model writes (gpt-oss ends only its
    last answer with ``<|return|>``); prose there is a footer, and the next header counts.
    """
    if tail is not None and between is not None:
        yield _first_words(_common_start(tail.lstrip(), between.lstrip()))
    if tail is not None and (between is None or _MARKER.match(tail.lstrip())):
        yield _first_words(tail)
    if between is not None:
        yield _first_words(between)


def _first_words(text: str) -> str:
    """The first line that is not empty; of several markers in a row the first, for the model ends with that.

    A header in plain words ("User:") keeps the line break before it: inside a line it would be prose.
    """
    body = text.lstrip()
    line = body.partition("\n")[0].rstrip()
    if (marker := _MARKER.match(line)) and _MARKER.match(line, marker.end()):
        return marker[0]
    is_after_break = "\n" in text[: len(text) - len(body)]
    return "\n" + line if is_after_break and line[:1].isalnum() else line


def _common_start(first: str, second: str) -> str:
    """What both texts begin with, up to the last marker or line that the comparison leaves whole."""
    size = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
    common = first[:size]
    if size in (len(first), len(second)):
        return common
    return common[: max(common.rfind(sign) for sign in ">]\n") + 1]


def _is_specific(text: str) -> bool:
    """Whether it is safe to stop at the text: letters or digits with other signs, neither of them alone."""
    signs = [sign for sign in text if not sign.isspace()]
    return any(sign.isalnum() for sign in signs) and not all(sign.isalnum() for sign in signs)


def _after_last_answer(template: ChatTemplate) -> str | None:
    """What follows an answer that ends the conversation; None when the template does not show it."""
    pattern = re.compile(f".*{_ANSWER}(.*)", re.DOTALL | re.IGNORECASE)
    return _first_match(template, pattern, [])


def _between_turns(template: ChatTemplate) -> str | None:
    """What stands between an answer and the next user's text; None when the template does not show it."""
    pattern = re.compile(f".*{_ANSWER}(.*?){_NEXT}", re.DOTALL | re.IGNORECASE)
    return _first_match(template, pattern, [{"role": "user", "content": _NEXT}])


def _first_match(template: ChatTemplate, pattern: re.Pattern[str], ending: list[Message]) -> str | None:
    """What the pattern finds in the first rendering that shows it.

    Some templates ask for a system message and some forbid it; those made for tools want a list of them.
    """
    turns: list[Message] = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": _ANSWER}]
    system: Message = {"role": "system", "content": "Be kind."}
    for opening in ([], [system]):
        for tools in (None, []):
            try:
                prompt = template.render([*opening, *turns, *ending], add_generation_prompt=False, tools=tools)
            except RequestError:
                continue
            if found := pattern.match(prompt):
                return found[1]
    return None
