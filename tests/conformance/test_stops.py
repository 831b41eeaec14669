"""Stops over standard fields alone: for any OpenAI-compatible server (``-m stops --url URL``).

Greedy answers come first, and the stops are chosen out of them, so that what has to come out is known to the byte.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from answers import CHATS, Answers, Plain
from black_box import Api, Reply
from rules import broken, same_text
from stop_choice import BEYOND_ASCII, IN_WORDS, NEVER, Chooser, across_two_tokens, cut, inside_a_token, shown

pytestmark = pytest.mark.stops

END_MARKERS = ["<|im_end|>", "<|eot_id|>", "<|end|>", "</s>"]
"""The ends of turn of many chat templates; OpenAI's limit is four stops."""

IN_TEXTS = ("inside_a_token", "across_two_tokens", "one_inside_another")
"""What is also asked of /v1/completions; the rest is the same code behind any server."""


@pytest.fixture(params=["chat", "completion"])
def plain(request: pytest.FixtureRequest, answers: Answers) -> Plain:
    """A chat's answer and a continued text to choose stops from."""
    return answers.chat() if request.param == "chat" else answers.text()


def ask(server: Api, plain: Plain, stop: Sequence[str] | str, **fields: Any) -> tuple[Reply, Reply]:
    """The same request whole and streamed."""
    fields = {"max_tokens": plain.max_tokens, "stop": stop, **fields}
    return server.whole(plain.prompt, **fields), server.streamed(plain.prompt, **fields)


def check_cut(server: Api, plain: Plain, stop: Sequence[str] | str, rule: int) -> tuple[Reply, Reply]:
    """The answer with these stops is the plain one up to the earliest, whole and streamed, and says so."""
    stops = [stop] if isinstance(stop, str) else stop
    whole, streamed = ask(server, plain, stop)
    same_text(rule, cut(plain.text, stops), whole.text, stop, without_the_stop=plain.text)
    same_text(rule, cut(plain.streamed.text, stops), streamed.text, stop, pieces=streamed.pieces)
    for reply in (whole, streamed):
        if reply.finish_reason != "stop":
            broken(rule, f"finish_reason is {reply.finish_reason!r} after a stop", stop=stop, got=reply.text)
    return whole, streamed


def choose(chooser: Chooser, plain: Plain) -> list[str]:
    return chooser(plain.pieces) or pytest.skip(f"no place for this in {plain.text!r}")


def test_greedy_answers_are_the_same_streamed(plain: Plain) -> None:
    """Finding such an answer is most of this test: without one nothing can be judged."""
    assert plain.is_repeatable


@pytest.mark.parametrize("kind", IN_WORDS)
def test_a_stop_ends_a_chat(server: Api, answers: Answers, kind: str) -> None:
    plain = answers.chat()
    check_cut(server, plain, choose(IN_WORDS[kind], plain), rule=3 if "one" in kind else 1)


@pytest.mark.parametrize("kind", IN_TEXTS)
def test_a_stop_ends_a_completion(server: Api, answers: Answers, kind: str) -> None:
    plain = answers.text()
    check_cut(server, plain, choose(IN_WORDS[kind], plain), rule=3 if "one" in kind else 1)


@pytest.mark.parametrize("kind", BEYOND_ASCII)
def test_a_stop_of_characters_of_several_bytes(server: Api, answers: Answers, kind: str) -> None:
    plain = answers.wide()
    check_cut(server, plain, choose(BEYOND_ASCII[kind], plain), rule=11)


def test_a_stop_ends_the_work(server: Api, plain: Plain) -> None:
    """A server may hide the stop and go on: then it counts tokens that nobody sees."""
    if plain.whole.usage is None or abs(plain.whole.num_tokens - len(plain.pieces)) > 1:
        pytest.skip("the server's events are not its tokens, so that it cannot be told where a stop completes")
    for chooser in (inside_a_token, across_two_tokens):
        stops = choose(chooser, plain)
        whole = server.whole(plain.prompt, max_tokens=plain.max_tokens, stop=stops)
        same_text(1, cut(plain.text, stops), whole.text, stops)
        end = plain.text.find(stops[0]) + len(stops[0])
        needed = next(k for k in range(len(plain.pieces) + 1) if len("".join(plain.pieces[:k])) >= end)
        if whole.num_tokens > needed:
            broken(10, f"{whole.num_tokens} tokens, and the stop completes with token {needed}", stop=stops)


@pytest.mark.parametrize("stop_is", ["text", "list", "doubled"])
def test_one_stop_may_come_in_every_form(server: Api, answers: Answers, stop_is: str) -> None:
    plain = answers.chat()
    (stop,) = choose(across_two_tokens, plain)
    forms: dict[str, Any] = {"text": stop, "list": [stop], "doubled": [stop, stop]}
    check_cut(server, plain, forms[stop_is], rule=3)


def test_a_stop_that_never_comes_delays_nothing(server: Api, plain: Plain) -> None:
    check_pieces(server, plain, [NEVER * 20, f"never{NEVER}"[::-1]])


@pytest.mark.parametrize("num_chars", [1, 3])
def test_only_what_may_become_a_stop_is_held_back(server: Api, plain: Plain, num_chars: int) -> None:
    """The stop begins like a place of the answer and then differs."""
    at = len("".join(plain.pieces[:5])) - 1
    check_pieces(server, plain, [plain.text[at : at + num_chars] + NEVER])


def check_pieces(server: Api, plain: Plain, stops: list[str]) -> None:
    """Events are compared, not times. A busy server may join two of them, so a second look is allowed."""
    wanted, got = tuple(shown(plain.pieces, stops)), ()
    for _ in range(2):
        got = server.streamed(plain.prompt, max_tokens=plain.max_tokens, stop=stops).pieces
        same_text(2, plain.streamed.text, "".join(got), stops)
        if got == wanted:
            return
    late = next(idx for idx, one in enumerate(wanted) if got[idx : idx + 1] != (one,))
    seen = {"wanted": wanted[late : late + 4], "got": got[late : late + 4]}
    broken(2, f"event {late} of the stream is not what its token brought", stop=stops, **seen)


@pytest.mark.parametrize("limit", [7, 12])
def test_the_length_limit_releases_what_is_held(server: Api, answers: Answers, limit: int) -> None:
    plain = answers.plain(answers.chat().prompt, limit)
    for num_chars in (1, 4):
        stop = [plain.text[-num_chars:] + NEVER]
        for reply in ask(server, plain, stop):
            same_text(7, plain.text, reply.text, stop, finish_reason=reply.finish_reason, limit=limit)
            assert reply.finish_reason == "length"


def test_the_end_of_the_answer_releases_what_is_held(server: Api, answers: Answers) -> None:
    plain = answers.ending()
    stop = [plain.text[-3:] + NEVER]
    for reply in ask(server, plain, stop):
        same_text(7, plain.text, reply.text, stop)
        assert reply.finish_reason == "stop"


@pytest.mark.parametrize("stop", [[f"never{NEVER}"], END_MARKERS], ids=["another", "end-markers"])
def test_the_models_own_end_stays_with_a_stop(server: Api, answers: Answers, stop: list[str]) -> None:
    plain = answers.ending()
    for reply in ask(server, plain, stop):
        same_text(4, plain.text, reply.text, stop, finish_reason=reply.finish_reason)
        if reply.finish_reason != "stop":
            broken(4, f"finish_reason is {reply.finish_reason!r}, the model does not end any more", stop=stop)


def test_the_end_of_turn_is_not_shown(server: Api, answers: Answers) -> None:
    for prompt in CHATS:
        plain = answers.plain(prompt)
        for marker in END_MARKERS:
            if marker in plain.text + plain.streamed.text:
                broken(5, f"the answer has {marker}", got=plain.text, streamed=plain.streamed.text)


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_a_character_cut_by_the_limit_is_the_same_streamed(server: Api, answers: Answers, limit: int) -> None:
    plain = answers.plain(answers.wide().prompt, limit)
    if plain.text != plain.streamed.text:
        broken(8, "streamed and whole differ", whole=plain.text, streamed=plain.streamed.pieces, limit=limit)
    if any("\N{REPLACEMENT CHARACTER}" in piece for piece in plain.pieces[:-1]):
        broken(11, "a piece of a character was sent before its rest", pieces=plain.pieces)


def test_requests_at_once_keep_their_own_stops(server: Api, answers: Answers) -> None:
    plain = answers.chat()
    stops = [choose(chooser, plain) for chooser in (inside_a_token, across_two_tokens)]
    stops += [[f"never{NEVER}"], [plain.text[12:16]]]

    def one(stop: list[str]) -> str:
        return server.whole(plain.prompt, max_tokens=plain.max_tokens, stop=stop).text

    with ThreadPoolExecutor(len(stops)) as pool:
        got = list(pool.map(one, stops))
    for stop, text in zip(stops, got, strict=True):
        same_text(4, cut(plain.text, stop), text, stop)
