"""Small requests, and how to read their streams."""

import json
from typing import Any

import httpx

MODEL = "demo"
ALIAS = "gpt-test"


def chat(**changes: Any) -> dict[str, Any]:
    """The body of a small chat, with changes."""
    messages = [{"role": "user", "content": "Say hello."}]
    return {"model": MODEL, "messages": messages, "max_tokens": 8, "temperature": 0, **changes}


def completion(**changes: Any) -> dict[str, Any]:
    """The body of a small completion, with changes."""
    return {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0, **changes}


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream that ended as it should."""
    frames = response.text.split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]
