"""Tool calls and reasoning, with a template that knows both; a grammar makes the small model write them."""

import json
from typing import Any

import httpx
import pytest
from live_server import Served
from request_bodies import chat, events

from tapster.server.http.schema.chat import CreateChatCompletionResponse, CreateChatCompletionStreamResponse
from tapster.server.http.tool_calls import ToolCallSplitter

MARKERS = ("<tool_call>", "</tool_call>")
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def says(text: str) -> str:
    """A grammar that allows one answer."""
    return f"root ::= {json.dumps(text)}"


def split(text: str, size: int) -> tuple[str, list[tuple[str, str]]]:
    """What a splitter makes of a text that comes in pieces of some size."""
    splitter = ToolCallSplitter(MARKERS)
    passed = "".join(splitter.feed(text[start : start + size]) for start in range(0, len(text), size))
    rest, calls = splitter.finish()
    return passed + rest, [(call.name, call.arguments) for call in calls]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "visible", "calls"),
    [
        ("plain", "plain", []),
        ("a < b <tool", "a < b <tool", []),
        (CALL, "", [("weather", '{"city": "Oslo"}')]),
        (f"Let me see. {CALL}", "Let me see. ", [("weather", '{"city": "Oslo"}')]),
        (f"{CALL}\n{CALL}", "", [("weather", '{"city": "Oslo"}')] * 2),
        (f"{CALL} and more", " and more", [("weather", '{"city": "Oslo"}')]),
        ("<tool_call>{broken</tool_call>", "<tool_call>{broken</tool_call>", []),
        ("<tool_call>[1]</tool_call>", "<tool_call>[1]</tool_call>", []),
        ('<tool_call>{"name": 5}</tool_call>', '<tool_call>{"name": 5}</tool_call>', []),
        ('<tool_call>{"name": "f"}', "", [("f", "{}")]),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("f", '{"a": 1}')]),
        ('<tool_call>{"name": "f", "parameters": {"a": 1}}</tool_call>', "", [("f", '{"a": 1}')]),
        (f"<tool_call>oops</tool_call>{CALL}", "<tool_call>oops</tool_call>", [("weather", '{"city": "Oslo"}')]),
    ],
)
def test_calls_are_split_from_the_text(text: str, visible: str, calls: list[tuple[str, str]], size: int) -> None:
    assert split(text, size) == (visible, calls)


def test_text_is_not_held_back_without_need() -> None:
    splitter = ToolCallSplitter(MARKERS)
    assert splitter.feed("one <") == "one "
    assert splitter.feed("b> two <tool_c") == "<b> two "
    assert splitter.feed("all>") == ""


def test_a_call_is_a_tool_call(narrow_http: httpx.Client) -> None:
    body = chat(tools=[TOOL], grammar=says(f"One moment. {CALL}"), max_tokens=60)
    answer = narrow_http.post("/v1/chat/completions", json=body).json()
    CreateChatCompletionResponse.model_validate(answer)
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "One moment. "
    call = choice["message"]["tool_calls"][0]
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Oslo"}'}

    chunks = events(narrow_http.post("/v1/chat/completions", json={**body, "stream": True}))
    for chunk in chunks:
        CreateChatCompletionStreamResponse.model_validate(chunk)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == "One moment. "
    [calls] = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
    assert calls[0]["function"] == call["function"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"

    turns = [*body["messages"], choice["message"], {"role": "tool", "tool_call_id": call["id"], "content": "12 C"}]
    prompt = narrow_http.post("/apply-template", json={"messages": turns, "tools": [TOOL]}).json()["prompt"]
    assert '"arguments": {"city": "Oslo"}' in prompt
    assert "12 C" in prompt


@pytest.mark.parametrize("changes", [{}, {"tools": [TOOL], "tool_choice": "none"}])
def test_without_tools_it_is_text(narrow_http: httpx.Client, changes: dict[str, Any]) -> None:
    body = chat(grammar=says(CALL), max_tokens=60, **changes)
    choice = narrow_http.post("/v1/chat/completions", json=body).json()["choices"][0]
    assert choice["message"]["content"] == CALL
    assert choice["finish_reason"] == "stop"
    assert "tool_calls" not in choice["message"]


def test_tools_are_shown_to_the_model_unless_hidden(narrow_http: httpx.Client) -> None:
    plain, shown, hidden = (
        narrow_http.post("/v1/chat/completions", json=chat(max_tokens=1, **changes)).json()["usage"]["prompt_tokens"]
        for changes in ({}, {"tools": [TOOL]}, {"tools": [TOOL], "tool_choice": "none"})
    )
    assert plain == hidden < shown


def test_reasoning_comes_apart_from_the_answer(narrow: Served, narrow_http: httpx.Client) -> None:
    assert narrow.runtime.profile.reasoning == ("<think>", "</think>")
    body = chat(grammar=says("<think>Well, well.</think>Hello."), max_tokens=60, stop="ll,")
    answer = narrow_http.post("/v1/chat/completions", json=body).json()
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Well, well.", "Hello.")
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    deltas = [
        chunk["choices"][0]["delta"]
        for chunk in events(narrow_http.post("/v1/chat/completions", json={**body, "stream": True}))
    ]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Well, well."
    assert "".join(delta.get("content", "") for delta in deltas) == "Hello."


def test_log_probabilities_of_reasoning_come_apart_too(narrow_http: httpx.Client) -> None:
    body = chat(grammar=says("<think>Well, well.</think>Hello."), max_tokens=60, logprobs=True)
    answer = narrow_http.post("/v1/chat/completions", json=body).json()
    logprobs = answer["choices"][0]["logprobs"]
    count = answer["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert (_text(logprobs["content"]), len(logprobs["reasoning_content"])) == ("Hello.", count)
    parts = [
        chunk["choices"][0]["logprobs"] or {}
        for chunk in events(narrow_http.post("/v1/chat/completions", json={**body, "stream": True}))
    ]
    for key in ("content", "reasoning_content"):
        assert _text([token for part in parts for token in part.get(key, ())]) == _text(logprobs[key])


def _text(tokens: list[dict[str, Any]]) -> str:
    return "".join(token["token"] for token in tokens)
