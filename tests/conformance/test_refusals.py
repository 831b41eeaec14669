"""What a server refuses: a clear error that names the parameter, and never silence."""

import json
import math
from typing import Any

import pytest
from answers import Answers
from black_box import Api, Prompt
from test_many_at_once import state

QUESTION = Prompt("Is water wet?")


def error_of(server: Api, status: int, path: str = "v1/chat/completions", **fields: Any) -> dict[str, Any]:
    """The error object of a request that is refused with this status."""
    response = server.post(path, {**server.body(QUESTION, max_tokens=8), **fields})
    assert response.status_code == status, response.text[:300]
    error = response.json()["error"]
    assert error["message"]
    assert "\n" not in error["message"]
    assert error["type"]
    return error


def test_a_prompt_beyond_the_context(server: Api) -> None:
    limit = state(server)["context_length"]
    error = error_of(server, 400, messages=[{"role": "user", "content": "word " * (limit + 50)}])
    assert str(limit) in error["message"]
    assert error["code"] == "context_length_exceeded"


def test_more_tokens_than_the_context(server: Api) -> None:
    limit = state(server)["context_length"]
    assert error_of(server, 400, max_tokens=limit + 1)["param"] == "max_tokens"


def test_the_context_ends_an_answer(server: Api) -> None:
    """No silent shift of the context: the last tokens that fit are made, then the length is the reason."""
    limit = state(server)["context_length"]
    response = server.post("tokenize", {"content": "word " * 64})
    if response.status_code != 200:
        pytest.skip("the server has no /tokenize")
    ids = (response.json()["tokens"] * limit)[: limit - 5]
    body = {"model": server.model, "prompt": ids, "max_tokens": 50, "temperature": 0, "ignore_eos": True}
    whole = server.post("v1/completions", body)
    if whole.status_code == 400:
        assert str(limit) in whole.json()["error"]["message"]
    else:
        assert whole.json()["choices"][0]["finish_reason"] == "length"
        assert whole.json()["usage"]["total_tokens"] in (limit, limit + 1)


def test_a_grammar_is_followed_or_refused(server: Api) -> None:
    response = server.post("v1/chat/completions", server.body(QUESTION, grammar='root ::= "yes" | "no"'))
    if response.status_code == 200:
        assert response.json()["choices"][0]["message"]["content"] in ("yes", "no")
    else:
        refused(response, "grammar")


def test_a_schema_is_followed_or_refused(server: Api) -> None:
    schema = {"type": "object", "properties": {"wet": {"type": "boolean"}}, "required": ["wet"]}
    schema["additionalProperties"] = False
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    response = server.post("v1/chat/completions", server.body(QUESTION, response_format=wanted))
    if response.status_code == 200:
        assert isinstance(json.loads(response.json()["choices"][0]["message"]["content"])["wet"], bool)
    else:
        refused(response, "response_format")


def test_embeddings_are_made_or_refused(server: Api) -> None:
    response = server.post("v1/embeddings", {"model": server.model, "input": ["water", "a spoon"]})
    if response.status_code == 200:
        vectors = [one["embedding"] for one in response.json()["data"]]
        assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1, 1], abs=1e-3)
        assert vectors[0] != vectors[1]
    else:
        refused(response, "model")


def refused(response: Any, param: str) -> None:
    """A 400 that says which engine cannot do it, and which parameter asked for it."""
    error = response.json()["error"]
    assert response.status_code == 400
    assert error["param"].startswith(param), error
    assert "engine" in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_off": 2}, "best_off"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"n": 0}, "n"),
        ({"top_logprobs": 2}, "top_logprobs"),
    ],
)
def test_a_wrong_parameter_is_named(server: Api, fields: dict[str, Any], param: str) -> None:
    assert error_of(server, 400, **fields)["param"] == param


def test_another_model_is_not_found(server: Api) -> None:
    assert error_of(server, 404, model="no-such-model")["param"] == "model"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b'{"messages": NaN}', b"\xff", b'{"model": "x"'])
def test_what_is_no_json_object(server: Api, body: bytes) -> None:
    response = server.http.post("v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["message"]


def test_a_token_that_the_model_has_not(server: Api) -> None:
    response = server.post("v1/completions", {"model": server.model, "prompt": [10**8], "max_tokens": 1})
    assert response.status_code == 400


def test_after_all_that_it_answers(server: Api, answers: Answers) -> None:
    plain = answers.chat()
    assert server.whole(plain.prompt, max_tokens=plain.max_tokens).text == plain.text
