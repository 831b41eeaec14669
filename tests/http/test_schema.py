"""Every body and every streamed chunk against OpenAI's schema as it is restated in tapster.server.http.schema."""

from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError
from request_bodies import MODEL, chat, completion, events

from tapster.server.http.schema.chat import CreateChatCompletionResponse, CreateChatCompletionStreamResponse
from tapster.server.http.schema.completion import CreateCompletionResponse
from tapster.server.http.schema.embedding import CreateEmbeddingResponse
from tapster.server.http.schema.models import ListModelsResponse, Model
from tapster.server.http.schema.status import ErrorResponse, Health, Ready
from tapster.server.http.schema.text import ApplyTemplateResponse, DetokenizeResponse, TokenizeResponse

# As in OpenAI's document: what must be there, although it may be null.
REQUIRED = {
    CreateChatCompletionResponse: {
        ("id", "object", "created", "model", "choices"),
        ("choices", "finish_reason", "index", "message", "logprobs"),
        ("message", "role", "content", "refusal"),
        ("logprobs", "content", "refusal"),
        ("usage", "prompt_tokens", "completion_tokens", "total_tokens"),
    },
    CreateChatCompletionStreamResponse: {
        ("id", "object", "created", "model", "choices"),
        ("choices", "delta", "finish_reason", "index"),
    },
    CreateCompletionResponse: {
        ("id", "object", "created", "model", "choices"),
        ("choices", "finish_reason", "index", "logprobs", "text"),
    },
}

CHATS = [
    {},
    {"n": 2, "temperature": 1},
    {"logprobs": True, "top_logprobs": 2},
    {"logprobs": True},
    {"stop": "e"},
    {"response_format": {"type": "json_object"}},
]
COMPLETIONS = [
    {},
    {"prompt": ["a", "b"], "n": 2},
    {"logprobs": 0},
    {"logprobs": 3},
    {"echo": True, "logprobs": 1, "max_tokens": 0},
    {"echo": True},
    {"stop": ["e"]},
]


def checked(model: type[BaseModel], body: dict[str, Any]) -> dict[str, Any]:
    """The body, which has all that the model requires and nothing that it does not list."""
    model.model_validate(body)
    return body


@pytest.mark.parametrize("changes", CHATS)
def test_chat(http: httpx.Client, changes: dict[str, Any]) -> None:
    body = checked(CreateChatCompletionResponse, http.post("/v1/chat/completions", json=chat(**changes)).json())
    choice = body["choices"][0]
    assert choice["message"]["refusal"] is None
    assert choice["message"]["annotations"] == []
    assert (choice["logprobs"] is not None) == bool(changes.get("logprobs"))
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0


@pytest.mark.parametrize("with_usage", [True, False])
@pytest.mark.parametrize("changes", CHATS)
def test_chat_stream(http: httpx.Client, changes: dict[str, Any], with_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if with_usage else {}
    response = http.post("/v1/chat/completions", json=chat(stream=True, **options, **changes))
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    chunks = [checked(CreateChatCompletionStreamResponse, event) for event in events(response)]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [("usage" in chunk) for chunk in chunks] == [with_usage] * len(chunks)
    if with_usage:
        *chunks, last = chunks
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] > 0
        assert all(chunk["usage"] is None for chunk in chunks)
    endings = [choice for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert len(endings) == changes.get("n", 1)
    assert all("stop_reason" in choice for choice in endings)


@pytest.mark.parametrize("changes", COMPLETIONS)
def test_completion(http: httpx.Client, changes: dict[str, Any]) -> None:
    body = checked(CreateCompletionResponse, http.post("/v1/completions", json=completion(**changes)).json())
    assert (body["choices"][0]["logprobs"] is not None) == ("logprobs" in changes)
    assert all(choice["finish_reason"] in ("stop", "length") for choice in body["choices"])


@pytest.mark.parametrize("changes", COMPLETIONS)
def test_completion_stream(http: httpx.Client, changes: dict[str, Any]) -> None:
    options = {"include_usage": True}
    response = http.post("/v1/completions", json=completion(stream=True, stream_options=options, **changes))
    *chunks, last = [checked(CreateCompletionResponse, event) for event in events(response)]
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens"] > 0
    assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")


def test_the_other_endpoints(http: httpx.Client) -> None:
    checked(ListModelsResponse, http.get("/v1/models").json())
    checked(Model, http.get(f"/v1/models/{MODEL}").json())
    checked(Health, http.get("/health").json())
    checked(Ready, http.get("/ready").json())
    checked(CreateEmbeddingResponse, http.post("/v1/embeddings", json={"model": MODEL, "input": "a"}).json())
    checked(TokenizeResponse, http.post("/tokenize", json={"content": "a"}).json())
    checked(TokenizeResponse, http.post("/tokenize", json={"content": "a", "with_pieces": True}).json())
    checked(DetokenizeResponse, http.post("/detokenize", json={"tokens": [1]}).json())
    checked(ApplyTemplateResponse, http.post("/apply-template", json={"messages": chat()["messages"]}).json())
    checked(ErrorResponse, http.get("/v1/nothing").json())


@pytest.mark.parametrize("model", REQUIRED)
def test_the_models_require_what_openai_requires(http: httpx.Client, model: type[BaseModel]) -> None:
    """Each of those fields taken out of a real body makes it invalid, so the checks above do check them."""
    body = _real_body(http, model)
    for where, *names in REQUIRED[model]:
        for name in names:
            broken = _without(body, where, name)
            with pytest.raises(ValidationError):
                model.model_validate(broken)
    with pytest.raises(ValidationError):
        model.model_validate({**body, "surprise": 1})


def _real_body(http: httpx.Client, model: type[BaseModel]) -> dict[str, Any]:
    if model is CreateCompletionResponse:
        return http.post("/v1/completions", json=completion(logprobs=1)).json()
    body = chat(logprobs=True)
    if model is CreateChatCompletionResponse:
        return http.post("/v1/chat/completions", json=body).json()
    return events(http.post("/v1/chat/completions", json={**body, "stream": True}))[1]


def _without(body: dict[str, Any], where: str, name: str) -> dict[str, Any]:
    """A copy of the body without one field of the object ``where``; ``id`` stands for the body itself."""
    if where == "id":
        return {key: value for key, value in body.items() if key != name}
    if where == "usage":
        return {**body, "usage": {key: value for key, value in body["usage"].items() if key != name}}
    choice = body["choices"][0]
    target = choice if where == "choices" else choice[where]
    smaller = {key: value for key, value in target.items() if key != name}
    return {**body, "choices": [smaller if where == "choices" else {**choice, where: smaller}]}
