"""The twelve rules where they need more than standard fields: matched stops, exact counts, reasoning, the cache."""

from collections.abc import Sequence
from typing import Any

import pytest
from answers import Answers, Plain
from black_box import Api, Prompt, Reply, Turn
from rules import broken, same_text
from stop_choice import (
    IN_WORDS,
    NEVER,
    across_three_tokens,
    across_two_tokens,
    cut,
    inside_a_token,
    the_end,
    whole_tokens,
)
from targets import Target

SUMS = ((2, 3), (4, 4), (1, 6))
THINKING = Prompt(
    "What is 2 and 3?",
    before=tuple(
        turn
        for a, b in SUMS
        for turn in (
            Turn("user", f"What is {a} and {b}?"),
            Turn("assistant", f"The answer is {a + b}.", reasoning_content=f"I add {a} and {b}."),
        )
    ),
)
"""Shown how, even a small model thinks before it answers. It has seen this answer, and is sure of it; of another
sum it is not, and when the prompt is in the cache another number may come."""


def winner(text: str, stops: Sequence[str]) -> str:
    """The stop that ends a text: the earliest, of several there the longest."""
    return min((stop for stop in stops if stop in text), key=lambda stop: (text.find(stop), -len(stop)))


def both(server: Api, prompt: Prompt, **fields: Any) -> tuple[Reply, Reply]:
    """The same request whole and streamed."""
    return server.whole(prompt, **fields), server.streamed(prompt, **fields)


def ask(server: Api, plain: Plain, **fields: Any) -> tuple[Reply, Reply]:
    return both(server, plain.prompt, max_tokens=plain.max_tokens, **fields)


def token_bytes(reply: Reply) -> list[bytes]:
    """The bytes of each token of a chat's answer that has log-probabilities."""
    return [bytes(token["bytes"]) for part in reply.logprobs for token in part["content"]]


@pytest.mark.parametrize("kind", ["inside_a_token", "one_inside_another", "one_begins_another", "later_one_first"])
def test_the_stop_that_matched_is_reported(server: Api, answers: Answers, kind: str) -> None:
    plain = answers.chat()
    stops = IN_WORDS[kind](plain.pieces) or pytest.skip(f"no place for this in {plain.text!r}")
    for reply in ask(server, plain, stop=stops):
        if reply.stop_reason != winner(plain.text, stops):
            broken(3, "another stop is reported", wanted=winner(plain.text, stops), got=reply.stop_reason, stop=stops)


def test_no_stop_is_reported_where_none_matched(server: Api, answers: Answers) -> None:
    for reply in ask(server, answers.ending(), stop=[NEVER]):
        assert (reply.finish_reason, reply.stop_reason) == ("stop", None)
    for reply in both(server, answers.chat().prompt, max_tokens=3, stop=[NEVER]):
        assert (reply.finish_reason, reply.stop_reason) == ("length", None)


@pytest.mark.parametrize("kind", ["inside_a_token", "across_two_tokens"])
def test_the_stop_can_be_kept(server: Api, answers: Answers, kind: str) -> None:
    plain = answers.chat()
    stops = IN_WORDS[kind](plain.pieces) or pytest.skip(f"no place for this in {plain.text!r}")
    for reply in ask(server, plain, stop=stops, include_stop_str_in_output=True):
        same_text(3, cut(plain.text, stops) + stops[0], reply.text, stops)


def test_the_end_of_turn_of_the_template_may_be_sent_as_a_stop(server: Api, answers: Answers) -> None:
    """It is known already, so nothing changes but that it may be named."""
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": NEVER}]
    response = server.post("apply-template", {"messages": messages, "add_generation_prompt": False})
    if response.status_code != 200:
        pytest.skip("the server has no /apply-template, which shows the end of turn")
    end = response.json()["prompt"].partition(NEVER)[2].strip()
    assert end
    plain = answers.ending()
    for stop in (end, end[1:-1], f"{end}\n"):
        for reply in ask(server, plain, stop=[stop]):
            same_text(5, plain.text, reply.text, stop)
            assert reply.finish_reason == "stop"


@pytest.mark.parametrize("kind", ["whole_tokens", "inside_a_token", "across_two_tokens", "the_end"])
def test_text_logprobs_and_usage_end_together(server: Api, answers: Answers, kind: str) -> None:
    """A token counts as soon as the text shows any of it."""
    plain = answers.chat()
    stops = IN_WORDS[kind](plain.pieces) or pytest.skip(f"no place for this in {plain.text!r}")
    options = {"include_usage": True}
    whole = server.whole(plain.prompt, max_tokens=plain.max_tokens, stop=stops, logprobs=True)
    streamed = server.streamed(
        plain.prompt, max_tokens=plain.max_tokens, stop=stops, logprobs=True, stream_options=options
    )
    for reply in (whole, streamed):
        tokens, text = token_bytes(reply), reply.text.encode()
        shown = b"".join(tokens)
        if reply.num_tokens != len(tokens) or not shown.startswith(text) or len(b"".join(tokens[:-1])) >= len(text):
            broken(9, "the counts differ", text=reply.text, tokens=tokens, usage=reply.usage, stop=stops)


def test_nothing_is_left_when_the_stop_comes_first(server: Api, answers: Answers) -> None:
    plain = answers.chat()
    for reply in ask(server, plain, stop=[plain.text[:2]], logprobs=True, stream_options=None):
        assert (reply.text, token_bytes(reply)) == ("", [])
        assert reply.usage is None or reply.num_tokens == 0


@pytest.mark.parametrize("chooser", [whole_tokens, across_three_tokens], ids=["whole", "across"])
def test_a_later_prompt_reuses_what_came_before_the_stop(
    server: Api, answers: Answers, target: Target, chooser: Any
) -> None:
    if target.engine == "vllm":
        pytest.skip("vLLM reuses whole blocks of its cache only, and does not report them unless told to")
    plain = answers.text()
    # A first word of its own, so that nothing of this prompt is in the cache from before.
    prompt = Prompt(f"{chooser.__name__}. {plain.text} {plain.prompt.text}", is_chat=False)
    pieces = server.streamed(prompt, max_tokens=plain.max_tokens).pieces
    stops = chooser(pieces) or pytest.skip(f"no place for this in {pieces!r}")
    stopped = server.whole(prompt, max_tokens=plain.max_tokens, stop=stops)
    longer = Prompt(prompt.text + stopped.text + " and then, after that,", is_chat=False)
    usage = server.whole(longer, max_tokens=1).usage
    assert stopped.usage
    assert usage
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    if cached is None:
        pytest.skip("the server does not report cached_tokens")
    # The last token of what is left may be cut differently when it is read as text.
    if cached < stopped.usage["total_tokens"] - 2:
        broken(10, "the cache was not reused", cached_tokens=cached, before_the_stop=stopped.usage["total_tokens"])


def thinking(server: Api, **fields: Any) -> Reply:
    reply = server.whole(THINKING, **fields)
    return reply if reply.reasoning or fields else pytest.skip("the model has no reasoning that the server knows of")


def test_stops_do_not_apply_inside_reasoning(server: Api) -> None:
    plain = thinking(server)
    hidden = next(word for word in plain.reasoning.split() if word not in plain.text)
    for reply in both(server, THINKING, stop=[hidden]):
        same_text(6, plain.reasoning, reply.reasoning, hidden, answer=reply.text)
        same_text(6, plain.text, reply.text, hidden, reasoning=reply.reasoning)


def test_a_stop_in_reasoning_and_answer_applies_to_the_answer(server: Api) -> None:
    plain = thinking(server)
    shared = next(char for char in plain.text[3:] if char in plain.reasoning and not char.isspace())
    for reply in both(server, THINKING, stop=[shared]):
        same_text(6, plain.reasoning, reply.reasoning, shared, answer=reply.text)
        same_text(6, cut(plain.text, [shared]), reply.text, shared, reasoning=reply.reasoning)


def test_many_long_stops_change_nothing(server: Api, answers: Answers) -> None:
    """64 stops of a thousand characters that begin like the answer, and one that comes."""
    plain = answers.chat()
    comes = across_two_tokens(plain.pieces) or the_end(plain.pieces) or inside_a_token(plain.pieces)
    assert comes
    never = [(plain.text[idx % 20 : 20] + "abcdefgh" * 125)[:990] + f"{NEVER}{idx}" for idx in range(63)]
    for reply in ask(server, plain, stop=[*never, *comes]):
        same_text(12, cut(plain.text, comes), reply.text, comes)
