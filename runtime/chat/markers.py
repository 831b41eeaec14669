"""The markers a chat template declares around reasoning and around tool calls, read off its source."""

import re
from collections.abc import Sequence

from jinja2 import TemplateError, nodes

from .sandbox import sandbox

Markers = tuple[str, str]

# Pairs of which one marker does not follow from the other.
_REASONING_PAIRS: tuple[Markers, ...] = (
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),  # gpt-oss
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ("### Rationale:", "### Answer:"),  # Memphis-CoT
)
_TOOL_PAIRS: tuple[Markers, ...] = (
    ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),  # Kimi K2
    ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),  # DeepSeek
    ("<|tool_call_start|>", "<|tool_call_end|>"),  # LFM2
    ("<|tool_call>", "<tool_call|>"),  # Gemma 4
    ("<|START_ACTION|>", "<|END_ACTION|>"),  # Command R7B
)
_TOOL_OPENERS = ("[TOOL_CALLS]", "<|tool_call|>", "<|python_tag|>")

_REASONING_CLOSER = re.compile(
    r"</(?P<tag>[\w:.-]*(?:think|thinking|thoughts?|reasoning|reason))>"
    r"|\[/(?P<bracket>THINK)\]"
    r"|<\|END_(?P<caps>THINKING|THOUGHT|REASONING)\|>"
)
_TOOL_CLOSER = re.compile(r"</(?P<tag>[\w:.-]*(?:tool_?calls?|function_?calls?))>", re.IGNORECASE)


def reasoning_markers(source: str) -> Markers | None:
    """What opens and closes reasoning, such as ``("<think>", "</think>")``; None where none is declared.

    The closing marker decides: some templates only cut reasoning off old answers, and never open one. Not
    covered: markers that a template puts together from pieces.
    """
    text = _written_text(source)
    return _known_pair(_REASONING_PAIRS, text) or _closed_pair(_REASONING_CLOSER, text)


def tool_call_markers(source: str) -> Markers | None:
    """What opens and closes the part of an answer that calls tools; None where none is declared.

    Where each call and all calls together have markers, those around all. The closing marker is empty where
    calls run to the end of the turn, as after Mistral's ``[TOOL_CALLS]``.
    """
    text = _written_text(source)
    openers = ((opener, "") for opener in _TOOL_OPENERS if opener in text)
    return _known_pair(_TOOL_PAIRS, text) or _closed_pair(_TOOL_CLOSER, text) or next(openers, None)


def opens_reasoning(prompt: str, markers: Markers | None) -> bool:
    """Whether the prompt ends by opening a reasoning block, so that the answer begins inside it.

    Only the very end counts: further up, the marker may stand in what a user wrote.
    """
    return markers is not None and prompt.rstrip().endswith(markers[0])


def is_inside_reasoning(text: str, markers: Markers | None) -> bool:
    """Whether text that the model wrote, such as a final message to be continued, stops inside reasoning."""
    return markers is not None and text.rfind(markers[0]) > text.rfind(markers[1])


def _known_pair(pairs: Sequence[Markers], text: str) -> Markers | None:
    """The first pair that the text has all of; the control tokens of a long marker may stand apart."""
    return next((pair for pair in pairs if all(piece in text for piece in _pieces(pair))), None)


def _pieces(pair: Markers) -> list[str]:
    return [piece for marker in pair for piece in re.findall(r"<[^<>]+>[^<>]*|[^<>]+", marker)]


def _closed_pair(closer: re.Pattern[str], text: str) -> Markers | None:
    """Of the pairs whose closing marker is in the text the one that opens first: the outer of nested ones."""
    pairs = {(_opener(close), close[0]) for close in closer.finditer(text)}
    places = {pair: text.find(pair[0]) if pair[0] in text else len(text) for pair in sorted(pairs)}
    return min(places, key=lambda pair: places[pair], default=None)


def _opener(close: re.Match[str]) -> str:
    names = close.groupdict()
    if names.get("bracket"):
        return f"[{names['bracket']}]"
    if names.get("caps"):
        return f"<|START_{names['caps']}|>"
    return f"<{names['tag']}>"


def _written_text(source: str) -> str:
    """What the template may write: its literal texts, without code and comments; all of it if no Jinja."""
    try:
        tree = sandbox().parse(source)
    except (TemplateError, RecursionError):
        return source
    texts = [node.data for node in tree.find_all(nodes.TemplateData)]
    texts += [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    return "\0".join(texts)
