"""Channels and stops over a stream of bytes."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapster.runtime.text.scanner import Channel, Rules, Scanner

THINK = ("<think>", "</think>")


def scan(rules: Rules, *chunks: bytes) -> tuple[str, str, bytes | None]:
    """Content, reasoning and the stop that matched."""
    scanner = Scanner(rules)
    texts = {Channel.CONTENT: b"", Channel.REASONING: b""}
    for chunk in chunks:
        for channel, data in scanner.feed(chunk):
            texts[channel] += data
        if scanner.match:
            break
    else:
        for channel, data in scanner.flush():
            texts[channel] += data
    stop = scanner.match.pattern if scanner.match else None
    return texts[Channel.CONTENT].decode(), texts[Channel.REASONING].decode(), stop


def bytewise(text: str) -> list[bytes]:
    return [bytes([byte]) for byte in text.encode()]


CASES = [
    ("<think>\nwhy\n</think>\n\nbecause", ("because", "why", None)),
    ("\n<think>why</think>because", ("because", "why", None)),
    ("no thoughts <think>x</think>", ("no thoughts <think>x</think>", "", None)),
    ("<think>never closed", ("", "never closed", None)),
    ("<think>a</think>b<think>c</think>", ("b<think>c</think>", "a", None)),
    ("<think>a STOP b</think>c STOP d", ("c ", "a STOP b", b"STOP")),
    ("<think>a<|end|>b</think>c", ("", "a", b"<|end|>")),
    ("  \n ", ("  \n ", "", None)),
    ("<thin", ("<thin", "", None)),
    ("x<thinSTOP", ("x<thin", "", b"STOP")),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_channels_whole_and_bytewise(text: str, expected: tuple[str, str, bytes | None]) -> None:
    rules = Rules(frozenset({"<|end|>"}), frozenset({"STOP"}), THINK)
    assert scan(rules, text.encode()) == expected
    assert scan(rules, *bytewise(text)) == expected


BLANK_CASES = [
    ("\n<think>why</think>because\nx", ("because", "why", b"\n")),
    ("<think>\nwhy\n</think>\n\nbecause\nx", ("because", "why", b"\n")),
    ("\nno thoughts", ("", "", b"\n")),
    (" \n ", (" ", "", b"\n")),
    (" \n<|end|>", (" ", "", b"\n")),
    (" <|end|>\n", (" ", "", b"<|end|>")),
    ("<think>why</think>\n<|end|>", ("", "why", b"<|end|>")),
    ("<think>why</think>\n\n", ("", "why", None)),
    ("<thi<nk>", ("", "", b"<")),
]


@pytest.mark.parametrize(("text", "expected"), BLANK_CASES)
def test_client_stops_do_not_match_the_white_space_of_markers(
    text: str, expected: tuple[str, str, bytes | None]
) -> None:
    rules = Rules(frozenset({"<|end|>"}), frozenset({"\n", "<"}), THINK)
    assert scan(rules, text.encode()) == expected
    assert scan(rules, *bytewise(text)) == expected


def test_starts_in_reasoning_when_the_prompt_opened_it() -> None:
    rules = Rules(reasoning=THINK, starts_in_reasoning=True)
    assert scan(rules, *bytewise("\nwhy\n</think>\n\nbecause")) == ("because", "why", None)


def test_plain_text_passes_without_delay() -> None:
    scanner = Scanner(Rules(frozenset({"<|end|>"}), frozenset({"\n\n"})))
    assert [s.data for chunk in bytewise("a<b\n") for s in scanner.feed(chunk)] == [b"a", b"<b"]


@settings(max_examples=500)
@given(st.lists(st.sampled_from(["<think>", "</think>", "STOP", "<|end|>", "a", " ", "\n", "é", "<"])), st.data())
def test_chunking_changes_nothing(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    edges = [0, *cuts, len(text)]
    chunks = [text[a:b] for a, b in pairwise(edges)]
    rules = Rules(frozenset({"<|end|>"}), frozenset({"STOP"}), THINK)
    assert scan(rules, *chunks) == scan(rules, text)


@settings(max_examples=500)
@given(st.lists(st.sampled_from(["STOP", "<|end|>", "S", "TOP", "<|", "end", "|>", "é"])))
def test_without_reasoning_equals_the_oracle(pieces: list[str]) -> None:
    text = "".join(pieces)
    stops = {"<|end|>", "STOP", "end|>"}
    rules = Rules(frozenset({"<|end|>", "end|>"}), frozenset({"STOP"}))
    starts = [text.find(stop) for stop in stops if stop in text]
    content, reasoning, _ = scan(rules, *bytewise(text))
    assert content == (text[: min(starts)] if starts else text)
    assert reasoning == ""
