"""How answers end, what they cost, how many there are, and that the same request has the same answer."""

from typing import Any

import pytest
from answers import Answers
from black_box import Api, Prompt

TALE = Prompt("Once upon a time, there was a", is_chat=False)
HOT = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 10}


def check_usage(usage: Any, num_tokens: int) -> None:
    assert usage["completion_tokens"] == num_tokens
    assert usage["prompt_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize("limit", [1, 6])
def test_the_length_limit(server: Api, answers: Answers, limit: int) -> None:
    plain = answers.plain(answers.chat().prompt, limit)
    assert plain.whole.finish_reason == plain.streamed.finish_reason == "length"
    check_usage(plain.whole.usage, limit)
    assert answers.chat().text.startswith(plain.text)


def test_the_models_own_end(answers: Answers) -> None:
    plain = answers.ending()
    assert plain.whole.finish_reason == plain.streamed.finish_reason == "stop"
    assert plain.whole.usage
    check_usage(plain.whole.usage, len(plain.pieces))


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_usage_is_streamed_when_asked_for(server: Api, answers: Answers, kind: str) -> None:
    prompt = (answers.chat() if kind == "chat" else answers.text()).prompt
    whole = server.whole(prompt, max_tokens=5).usage
    asked = list(server.events(prompt, max_tokens=5, stream_options={"include_usage": True}))
    assert whole
    assert asked[-1]["choices"] == []
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert asked[-1]["usage"][name] == whole[name]
    assert not any(event.get("usage") for event in asked[:-1])
    assert not any(event.get("usage") for event in server.events(prompt, max_tokens=5))


def test_events_belong_together(server: Api, answers: Answers) -> None:
    events = list(server.events(answers.chat().prompt, max_tokens=4))
    assert len({(event["id"], event["model"], event["created"]) for event in events}) == 1
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"


def test_several_answers(server: Api, answers: Answers) -> None:
    plain = answers.plain(answers.chat().prompt, 6)
    replies = server.choices(plain.prompt, max_tokens=6, n=3)
    assert [reply.choice["index"] for reply in replies] == [0, 1, 2]
    assert {reply.text for reply in replies} == {plain.text}
    check_usage(replies[0].usage, 18)
    assert replies[0].usage["prompt_tokens"] == plain.whole.usage["prompt_tokens"]  # type: ignore[index]  # there, as asked


def test_several_streamed_answers(server: Api, answers: Answers) -> None:
    plain = answers.plain(answers.chat().prompt, 6)
    texts, ends = {0: "", 1: ""}, []
    for event in server.events(plain.prompt, max_tokens=6, n=2):
        for choice in event["choices"]:
            texts[choice["index"]] += choice["delta"].get("content") or ""
            ends += [choice["finish_reason"]] if choice["finish_reason"] else []
    assert texts == {0: plain.text, 1: plain.text}
    assert ends == ["length", "length"]


def test_sampled_answers_of_one_request_differ(server: Api) -> None:
    replies = server.choices(TALE, **HOT, seed=5, n=4)
    assert len({reply.text for reply in replies}) > 1


def test_a_seed_repeats_its_answer(server: Api) -> None:
    server.whole(TALE, **HOT, seed=7)
    first, again = server.whole(TALE, **HOT, seed=7), server.whole(TALE, **HOT, seed=7)
    assert first.text == again.text == server.streamed(TALE, **HOT, seed=7).text
    others = {server.whole(TALE, **HOT, seed=seed).text for seed in (8, 9, 10)}
    assert others != {first.text}


def test_greedy_heeds_no_seed(server: Api, answers: Answers) -> None:
    plain = answers.plain(answers.chat().prompt, 6)
    assert {server.whole(plain.prompt, max_tokens=6, seed=seed).text for seed in (1, 2)} == {plain.text}


def test_an_earlier_turn_changes_the_answer(server: Api) -> None:
    """What a chat says before is read: the same question has another prompt."""
    question = Prompt("What is 5 and 2?")
    messages = [{"role": "system", "content": "You are terse."}, *question.body()["messages"]]
    short, longer = server.whole(question, max_tokens=1), server.whole(question, max_tokens=1, messages=messages)
    assert short.usage
    assert longer.usage
    assert short.usage["prompt_tokens"] != longer.usage["prompt_tokens"]


def test_the_model_is_listed(server: Api) -> None:
    listed = server.http.get("v1/models").json()
    assert listed["object"] == "list"
    assert server.model in [model["id"] for model in listed["data"]]
