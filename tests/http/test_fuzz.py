"""Requests made up by hypothesis: whatever they say, the answer is a success or an error object, never a 500."""

import json
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_server import Served
from request_bodies import chat, completion

from tapster.server.http.schema.chat_request import CreateChatCompletionRequest
from tapster.server.http.schema.completion_request import CreateCompletionRequest
from tapster.server.http.schema.embedding import CreateEmbeddingRequest
from tapster.server.http.schema.messages import Message
from tapster.server.http.schema.status import ErrorResponse
from tapster.server.http.schema.text import DetokenizeRequest, TokenizeRequest

bounded = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 5),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["auto", "text", "user", "root ::= [", "<|im_end|>", "\x00", "𝄞"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["type", "text", "role", "content", "name", "schema", "a"]), inner, max_size=3),
    ),
    max_leaves=6,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool", "developer"]), "content": VALUES},
        optional=dict.fromkeys(set(Message.model_fields) - {"role", "content"}, VALUES),
    ),
    max_size=3,
)
BITS = st.booleans()
PLAUSIBLE: dict[str, st.SearchStrategy[Any]] = {
    "messages": MESSAGES,
    "prompt": st.one_of(
        st.text(max_size=20), st.lists(st.integers(0, 60_000), max_size=5), st.lists(st.text(max_size=5))
    ),
    "stop": st.one_of(st.text(max_size=4), st.lists(st.text(min_size=1, max_size=4), max_size=4)),
    "logit_bias": st.dictionaries(st.integers(-2, 60_000).map(str), st.floats(-100, 100), max_size=4),
    "echo": BITS,
    "stream": BITS,
    "ignore_eos": BITS,
    "include_stop_str_in_output": BITS,
    "add_generation_prompt": BITS,
    "continue_final_message": BITS,
    "with_pieces": BITS,
    "add_special": BITS,
    "parse_special": BITS,
    "encoding_format": st.sampled_from(["float", "base64"]),
    "input": st.one_of(st.text(min_size=1, max_size=20), st.lists(st.text(min_size=1, max_size=5), max_size=3)),
    "content": st.text(max_size=20),
    "tokens": st.lists(st.integers(0, 60_000), max_size=5),
    "temperature": st.floats(0, 100),
    "top_p": st.floats(0, 1),
    "min_p": st.floats(0, 1),
    "typical_p": st.floats(0, 1),
    "frequency_penalty": st.floats(-2, 2),
    "presence_penalty": st.floats(-2, 2),
    "top_k": st.integers(0, 2**31),
    "penalty_last_n": st.integers(0, 2**31),
    "repeat_penalty": st.floats(0.01, 10),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "n": st.integers(0, 3),
    "logprobs": st.one_of(st.booleans(), st.integers(0, 20)),
    "top_logprobs": st.integers(0, 20),
    "grammar": st.sampled_from(['root ::= "a"', 'root ::= [^"]*', "root ::=", 'root ::= "a" | root', "x ::= 'a'"]),
    "response_format": st.builds(
        lambda schema: {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        st.dictionaries(
            st.sampled_from(["type", "properties", "items", "enum", "anyOf", "$ref", "minItems", "format", "required"]),
            st.one_of(VALUES, st.sampled_from(["object", "string", "#", "array"])),
            max_size=4,
        ),
    ),
}


def changes_of(fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Fields of a request with values of their kind, and at most one that may be anything: it gets furthest so.

    How many tokens are made is not among them, so that every request is small.
    """
    free = set(fields) - {"model", "max_tokens", "max_completion_tokens"}
    sound = st.fixed_dictionaries({}, optional={name: PLAUSIBLE[name] for name in sorted(free & PLAUSIBLE.keys())})
    few = st.tuples(sound, st.sets(st.sampled_from(sorted(free)), max_size=5)).map(
        lambda pair: {name: value for name, value in pair[0].items() if name in pair[1]}
    )
    wild = st.dictionaries(st.sampled_from(sorted(free)), VALUES, max_size=1)
    return st.tuples(few, wild).map(lambda pair: pair[0] | pair[1])


def is_answered(http: httpx.Client, url: str, body: dict[str, Any]) -> None:
    """Whether a request gets what every request may expect."""
    response = http.post(url, content=json.dumps(body).encode(), headers={"content-type": "application/json"})
    assert response.status_code in (200, 400, 404), (response.text, body)
    if response.status_code != 200:
        ErrorResponse.model_validate(response.json())
    elif body.get("stream"):
        assert response.text.endswith("data: [DONE]\n\n")
    else:
        response.json()


@bounded
@given(changes=changes_of(CreateChatCompletionRequest.model_fields))
def test_chat(http: httpx.Client, changes: dict[str, Any]) -> None:
    is_answered(http, "/v1/chat/completions", chat(max_tokens=2, **changes))


@bounded
@given(changes=changes_of(CreateCompletionRequest.model_fields))
def test_completion(http: httpx.Client, changes: dict[str, Any]) -> None:
    is_answered(http, "/v1/completions", {**completion(max_tokens=2), **changes})


@bounded
@given(changes=changes_of({*CreateEmbeddingRequest.model_fields, *TokenizeRequest.model_fields, "tokens"}))
def test_embeddings_and_tokens(http: httpx.Client, changes: dict[str, Any]) -> None:
    for url, model, body in (
        ("/v1/embeddings", CreateEmbeddingRequest, {"model": "demo", "input": "a"}),
        ("/tokenize", TokenizeRequest, {"content": "a"}),
        ("/detokenize", DetokenizeRequest, {"tokens": [1]}),
    ):
        is_answered(http, url, {**body, **{name: changes[name] for name in changes if name in model.model_fields}})


@bounded
@given(body=st.binary(max_size=60))
def test_bytes(http: httpx.Client, body: bytes) -> None:
    for url in ("/v1/chat/completions", "/v1/completions", "/apply-template"):
        response = http.post(url, content=body, headers={"content-type": "application/json"})
        assert response.status_code == 400
        ErrorResponse.model_validate(response.json())


def test_nothing_is_left_running(served: Served) -> None:
    assert served.is_idle()
    assert served.holder.status == "ready"
