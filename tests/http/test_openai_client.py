"""The official client against the real server."""

import asyncio
import json
from typing import Any

import openai
import pytest
from live_server import Served
from openai import AsyncOpenAI, OpenAI
from openai.types import CompletionChoice
from openai.types.chat import ChatCompletionMessageParam
from request_bodies import ALIAS, MODEL

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]


def test_models_are_listed_and_found(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).object == "model"
    assert client.models.retrieve(ALIAS).id == MODEL
    with pytest.raises(openai.NotFoundError, match="serves 'demo'") as caught:
        client.models.retrieve("gpt-9")
    assert caught.value.code == "model_not_found"


def test_chat_answers_with_usage(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=ALIAS, messages=HELLO, max_tokens=8, temperature=0)
    choice = answer.choices[0]
    assert choice.finish_reason == "length"
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert answer.model == MODEL
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


def test_an_answer_can_be_sent_back_as_it_came(client: OpenAI) -> None:
    first = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=8, temperature=0)
    turn = first.choices[0].message.model_dump()
    messages = [*HELLO, turn, {"role": "user", "content": "And again."}]
    second = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4)
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


def test_a_stream_is_the_answer_in_pieces(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            max_tokens=12,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"grammar": 'root ::= "Good morning to you."'},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "Good morning to you."
    assert [chunk.usage is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 3
    assert len(chunks) > 5
    assert len({chunk.id for chunk in chunks}) == 1


def test_completions_of_texts_and_of_token_ids(client: OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=["One, two,", "A, B,"], max_tokens=2, temperature=0, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in answer.choices]
    assert texts[0] == texts[1]
    assert texts[2] == texts[3]
    ids = client.post("../tokenize", body={"content": "One, two,"}, cast_to=object)
    assert isinstance(ids, dict)
    same = client.completions.create(model=MODEL, prompt=ids["tokens"], max_tokens=2, temperature=0)
    assert same.choices[0].text == texts[0]


def test_chat_logprobs(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert (
        b"".join(bytes(token.bytes or ()) for token in logprobs.content).decode() == answer.choices[0].message.content
    )
    for token in logprobs.content:
        best = [top.logprob for top in token.top_logprobs]
        assert len(best) == 3
        assert best == sorted(best, reverse=True)
        # Greedy: what was chosen is the most likely.
        assert token.top_logprobs[0].token == token.token
        assert token.logprob == best[0] < 0


def test_stops_end_the_answer_and_are_reported(client: OpenAI) -> None:
    def count(**changes: Any) -> CompletionChoice:
        body = {"grammar": 'root ::= "one two three four"', **changes.pop("extra_body", {})}
        return client.completions.create(model=MODEL, prompt="1 2", max_tokens=20, extra_body=body, **changes).choices[
            0
        ]

    stopped = count(stop=["no such text", "o thr"])
    assert (stopped.text, stopped.finish_reason) == ("one tw", "stop")
    assert stopped.model_extra == {"stop_reason": "o thr"}
    assert count(stop=" three", extra_body={"include_stop_str_in_output": True}).text == "one two three"
    assert count(stop="five").model_extra == {"stop_reason": None}


def test_embeddings_in_both_encodings(client: OpenAI) -> None:
    floats = client.embeddings.create(model=MODEL, input=["a cat", "a dog"], encoding_format="float")
    packed = client.embeddings.create(model=MODEL, input=["a cat", "a dog"])
    for one, other in zip(floats.data, packed.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert sum(number * number for number in one.embedding) == pytest.approx(1, abs=1e-4)
    assert floats.usage.total_tokens == floats.usage.prompt_tokens > 0
    width = len(floats.data[0].embedding)
    assert client.embeddings.create(model=MODEL, input=[1, 2, 3], dimensions=width).data[0].index == 0
    with pytest.raises(openai.BadRequestError, match=f"must be {width}") as caught:
        client.embeddings.create(model=MODEL, input="a cat", dimensions=width - 1)
    assert caught.value.param == "dimensions"


def test_errors_name_the_parameter_and_the_numbers(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"messages\[0\].role must be 'system'") as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "robot", "content": "x"}])  # type: ignore[list-item]  no such role
    assert caught.value.param == "messages[0].role"
    with pytest.raises(openai.BadRequestError, match=r"prompt is \d{4,} tokens and the context holds 8192") as caught:
        client.completions.create(model=MODEL, prompt="word " * 9000)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "prompt"


def test_json_mode_answers_in_json(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Name a city and its country."}],
        max_tokens=80,
        temperature=0,
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "place",
                "schema": {
                    "type": "object",
                    "properties": {
                        "city": {"type": "string", "maxLength": 20},
                        "people": {"type": ["integer", "null"]},
                        "size": {"enum": ["small", "large"]},
                    },
                    "required": ["city", "size"],
                    "additionalProperties": False,
                },
            },
        },
    )
    assert answer.choices[0].finish_reason == "stop"
    place = json.loads(answer.choices[0].message.content or "")
    assert isinstance(place["city"], str)
    assert place["size"] in ("small", "large")
    assert place.keys() <= {"city", "people", "size"}


async def test_thirty_two_clients_at_once(served: Served) -> None:
    async def ask(client: AsyncOpenAI, number: int) -> str:
        answer = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": f"Count from {number}."}], max_tokens=6, temperature=0
        )
        assert answer.choices[0].finish_reason in ("length", "stop")
        return answer.choices[0].message.content or ""

    async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        answers = await asyncio.gather(*(ask(client, number) for number in range(32)))
    assert all(answers)
    assert await asyncio.to_thread(served.is_idle)
