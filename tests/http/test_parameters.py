"""What a request may say, and what a wrong one is told."""

from typing import Any

import httpx
import pytest
from live_server import Served
from request_bodies import MODEL, chat, completion

from tapster.runtime.sampling import MAX_SEED
from tapster.server.http.sampling import sampling_params
from tapster.server.http.schema.chat_request import CreateChatCompletionRequest
from tapster.server.http.schema.completion_request import CreateCompletionRequest
from tapster.server.http.schema.harmless import HarmlessForChat

IMAGE = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}
TOOL = {"type": "function", "function": {"name": "f"}}


def message(**fields: Any) -> dict[str, Any]:
    """A chat of one message."""
    return {"messages": [fields]}


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": "gpt-9"}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        (message(content="x"), "messages[0].role"),
        (message(role="robot", content="x"), "messages[0].role"),
        (message(role="user"), "messages[0]"),
        (message(role="user", content=5), "messages[0].content"),
        (message(role="user", content=[]), "messages[0].content"),
        (message(role="user", content=[{"type": "text", "text": "a"}, IMAGE]), "messages[0].content[1].type"),
        (message(role="user", content="x", mood="good"), "messages[0].mood"),
        (message(role="user", content="x", tool_calls=[]), "messages[0]"),
        (message(role="assistant", tool_calls=[{"id": "1"}]), "messages[0].tool_calls[0].type"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_tokens": "8"}, "max_tokens"),
        ({"max_tokens": 8.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 8, "max_completion_tokens": 9}, "max_tokens"),
        ({"max_tokens": None, "max_completion_tokens": 0}, "max_completion_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"typical_p": -1}, "typical_p"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"repeat_penalty": 1.1, "repetition_penalty": 1.2}, "repetition_penalty"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"penalty_last_n": -1}, "penalty_last_n"),
        ({"seed": 2**64}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"logit_bias": {"cat": 1}}, "logit_bias"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a"] * 65}, "stop"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"logprobs": 3}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include": True}}, "stream_options.include"),
        ({"grammar": "root ::= ("}, "grammar"),
        ({"grammar": "root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000}, "grammar"),
        ({"grammar": 'root ::= "a"{1,1000000}'}, "grammar"),
        ({"grammar": "root ::= root"}, "grammar"),
        ({"grammar": 'root ::= "a"', "response_format": {"type": "json_object"}}, "grammar"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"tools": [TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"documents": [{"text": "x"}]}, "documents"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "chat_template_kwargs.enable_thinking"),
        ({"add_generation_prompt": True, "continue_final_message": True}, "add_generation_prompt"),
        ({"store": True}, "store"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"modalities": ["audio"]}, "modalities[0]"),
    ],
)
def test_a_wrong_chat_is_told_which_parameter(http: httpx.Client, changes: dict[str, Any], param: str) -> None:
    response = http.post("/v1/chat/completions", json=chat(**changes))
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (404 if param == "model" and changes["model"] else 400, param)
    assert error["type"] == "invalid_request_error"
    assert param in error["message"] or param.split(".")[-1] in error["message"] or "template" in error["message"]
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1, not 0"),
        (
            {"response_format": {"type": "xml"}},
            "response_format must have one of the types 'text', 'json_object', 'json_schema', not \"xml\"",
        ),
    ],
)
def test_a_wrong_value_is_told_what_is_right(http: httpx.Client, changes: dict[str, Any], message: str) -> None:
    assert http.post("/v1/chat/completions", json=chat(**changes)).json()["error"]["message"] == message


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": [1, "a"]}, "prompt[1]"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [10**7]}, "prompt"),
        ({"prompt": [[1], [10**7]]}, "prompt"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": ["a"] * 20, "n": 8}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a", "word " * 9000]}, "prompt"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"echo": 1}, "echo"),
        ({"grammar": "root ::= ("}, "grammar"),
        ({"messages": []}, "messages"),
    ],
)
def test_a_wrong_completion_is_told_which_parameter(http: httpx.Client, changes: dict[str, Any], param: str) -> None:
    response = http.post("/v1/completions", json=completion(**changes))
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("url", "body", "param"),
    [
        ("/v1/embeddings", {"model": MODEL, "input": ""}, "input"),
        ("/v1/embeddings", {"model": MODEL, "input": []}, "input"),
        ("/v1/embeddings", {"model": MODEL, "input": [10**7]}, "input"),
        ("/v1/embeddings", {"model": MODEL, "input": "word " * 9000}, "input"),
        ("/v1/embeddings", {"model": MODEL, "input": "a", "encoding_format": "hex"}, "encoding_format"),
        ("/v1/embeddings", {"model": MODEL}, "input"),
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": "a", "prompt": "a"}, "prompt"),
        ("/tokenize", {"content": 1}, "content"),
        ("/detokenize", {"tokens": [10**7]}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
        ("/detokenize", {}, "tokens"),
        ("/apply-template", {"messages": [], "model": MODEL}, "messages"),
    ],
)
def test_the_other_endpoints_tell_too(http: httpx.Client, url: str, body: dict[str, Any], param: str) -> None:
    response = http.post(url, json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    "url",
    ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize", "/detokenize", "/apply-template"],
)
@pytest.mark.parametrize("name", ["best_off", "prediction", "functions", "reasoning_effort", "__class__", "a.b", ""])
def test_an_unknown_parameter_is_refused_by_name(http: httpx.Client, url: str, name: str) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": chat(),
        "/v1/completions": completion(),
        "/v1/embeddings": {"model": MODEL, "input": "a"},
        "/tokenize": {"content": "a"},
        "/detokenize": {"tokens": [1]},
        "/apply-template": {"messages": chat()["messages"]},
    }
    response = http.post(url, json={**bodies[url], name: None})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == name
    assert response.json()["error"]["code"] == "unknown_parameter"


def test_harmless_parameters_are_accepted(http: httpx.Client) -> None:
    harmless = {
        "user": "u",
        "safety_identifier": "s",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "auto",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "in_memory",
        "parallel_tool_calls": True,
        "modalities": ["text"],
    }
    assert harmless.keys() == HarmlessForChat.model_fields.keys()
    assert http.post("/v1/chat/completions", json=chat(**harmless)).status_code == 200
    nothing = dict.fromkeys(harmless)
    assert http.post("/v1/chat/completions", json=chat(**nothing)).status_code == 200


def test_null_is_as_good_as_absent(http: httpx.Client) -> None:
    for url, model, body in (
        ("/v1/chat/completions", CreateChatCompletionRequest, chat()),
        ("/v1/completions", CreateCompletionRequest, completion()),
    ):
        nulls = dict.fromkeys(model.model_fields)
        assert http.post(url, json={**nulls, **body}).status_code == 200


def test_every_seed_has_one_of_the_engines(served: Served, http: httpx.Client) -> None:
    seeds = (0, 1, -1, -2, 2**32 - 1, 2**62 + 5, 2**63 - 1, -(2**63))
    used = []
    for seed in seeds:
        request = CreateChatCompletionRequest.model_validate(chat(seed=seed))
        params = sampling_params(request, served.runtime, max_tokens=1, top_logprobs=None)
        assert params.seed is not None
        assert 0 <= params.seed <= MAX_SEED
        used.append(params.seed)
        assert http.post("/v1/chat/completions", json=chat(seed=seed, max_tokens=1)).status_code == 200
    assert len(set(used[:4])) == 4


def test_penalties_may_look_back_as_far_as_they_like(http: httpx.Client) -> None:
    """Without reserving memory for two thousand million tokens."""
    body = completion(repeat_penalty=1.3, penalty_last_n=2**31 - 1, max_tokens=2)
    assert http.post("/v1/completions", json=body).status_code == 200


def test_logit_bias_forces_a_token(http: httpx.Client) -> None:
    token = http.post("/tokenize", json={"content": " banana"}).json()["tokens"]
    body = completion(logit_bias={str(token[0]): 100}, max_tokens=3)
    text = http.post("/v1/completions", json=body).json()["choices"][0]["text"]
    assert text == http.post("/detokenize", json={"tokens": token[:1] * 3}).json()["content"]


def test_a_grammar_shapes_the_answer(http: httpx.Client) -> None:
    body = chat(grammar='root ::= "yes" | "no"', max_tokens=8)
    choice = http.post("/v1/chat/completions", json=body).json()["choices"][0]
    assert choice["message"]["content"] in ("yes", "no")
    assert choice["finish_reason"] == "stop"


def test_ignore_eos_goes_on(http: httpx.Client) -> None:
    body = completion(grammar=None, logit_bias={"2": 100}, max_tokens=5)
    assert http.post("/v1/completions", json=body).json()["choices"][0]["finish_reason"] == "stop"
    going = http.post("/v1/completions", json={**body, "ignore_eos": True}).json()
    assert going["choices"][0]["finish_reason"] == "length"
    assert going["usage"]["completion_tokens"] == 5


def test_a_message_is_continued(http: httpx.Client) -> None:
    messages = [*chat()["messages"], {"role": "assistant", "content": "Hello there, my dear"}]
    prompt = http.post("/apply-template", json={"messages": messages, "continue_final_message": True}).json()["prompt"]
    assert prompt.endswith("Hello there, my dear")
    going = http.post("/v1/chat/completions", json=chat(messages=messages, continue_final_message=True)).json()
    tokens = http.post("/tokenize", json={"content": prompt}).json()["tokens"]
    assert going["usage"]["prompt_tokens"] == len(tokens)


def test_parts_and_developer_messages_reach_the_template(http: httpx.Client) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    prompt = http.post("/apply-template", json={"messages": messages}).json()["prompt"]
    assert "system\nBe brief." in prompt
    assert "one\ntwo" in prompt
