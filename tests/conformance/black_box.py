"""A small client for any OpenAI-compatible server, whole or streamed. It knows nothing of what is behind the URL."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

TIMEOUT_S = 300


@dataclass(frozen=True)
class Turn:
    """An earlier message of a chat."""

    role: str
    content: str
    reasoning_content: str | None = None

    def body(self) -> dict[str, str]:
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Prompt:
    """A question to a chat, after earlier turns if any; or with ``is_chat=False`` a text to continue."""

    text: str
    is_chat: bool = True
    before: tuple[Turn, ...] = ()

    @property
    def path(self) -> str:
        return "chat/completions" if self.is_chat else "completions"

    def body(self) -> dict[str, Any]:
        if not self.is_chat:
            return {"prompt": self.text}
        return {"messages": [turn.body() for turn in (*self.before, Turn("user", self.text))]}


@dataclass(frozen=True)
class Reply:
    """One answer. ``pieces`` are the texts of a stream's events, empty ones left out; a whole answer has one."""

    text: str
    pieces: tuple[str, ...]
    finish_reason: str | None
    choice: Mapping[str, Any]
    usage: Mapping[str, Any] | None = None
    reasoning: str = ""
    logprobs: tuple[Any, ...] = field(default=(), repr=False)

    @property
    def stop_reason(self) -> Any:
        """The stop that matched, where the server tells."""
        return self.choice.get("stop_reason")

    @property
    def num_tokens(self) -> int:
        """The server's own count of the answer's tokens."""
        assert self.usage is not None, "the answer has no usage"
        return self.usage["completion_tokens"]


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"{response.request.url.path} answered {response.status_code}: {response.text[:500]}")
        self.status = response.status_code


class Api:
    """The endpoints below ``url``, which may end in ``/v1`` or not. Greedy and 48 tokens unless told otherwise."""

    def __init__(self, url: str, model: str | None = None, api_key: str | None = None) -> None:
        self.root = url.rstrip("/").removesuffix("/v1")
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self.http = httpx.Client(base_url=f"{self.root}/", headers=headers, timeout=TIMEOUT_S)
        self.model = model or self._first_model()
        self.is_slow = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def post(self, path: str, body: Any) -> httpx.Response:
        """The response to a body, good or bad."""
        return self.http.post(path, json=body)

    def body(self, prompt: Prompt, **fields: Any) -> dict[str, Any]:
        """A request's body."""
        return {"model": self.model, **prompt.body(), "temperature": 0, "max_tokens": 48, **fields}

    def whole(self, prompt: Prompt, **fields: Any) -> Reply:
        """The answer in one piece."""
        (reply,) = self.choices(prompt, **fields)
        return reply

    def choices(self, prompt: Prompt, **fields: Any) -> list[Reply]:
        """All answers of a request with ``n``."""
        response = self.post(f"v1/{prompt.path}", self.body(prompt, **fields))
        if response.status_code != 200:
            raise Refused(response)
        body = response.json()
        return [_whole_reply(choice, body.get("usage")) for choice in body["choices"]]

    def streamed(self, prompt: Prompt, **fields: Any) -> Reply:
        """The answer put together from its events."""
        return _streamed_reply(list(self.events(prompt, **fields)))

    def events(self, prompt: Prompt, **fields: Any) -> Iterator[dict[str, Any]]:
        """The events of a stream, which has to end with [DONE]. Closing the iterator closes the connection."""
        body = self.body(prompt, **fields, stream=True)
        with self.http.stream("POST", f"v1/{prompt.path}", json=body) as response:
            if response.status_code != 200:
                response.read()
                raise Refused(response)
            data = ""
            for line in response.iter_lines():
                if line.startswith("data:"):
                    data = line.removeprefix("data:").strip()
                    if data != "[DONE]":
                        yield _event(data)
            assert data == "[DONE]", f"the stream did not end with [DONE] but with {data!r}"

    def _first_model(self) -> str:
        response = self.http.get("v1/models")
        if response.status_code != 200:
            raise Refused(response)
        return response.json()["data"][0]["id"]


def _event(data: str) -> dict[str, Any]:
    event = json.loads(data)
    assert "error" not in event, f"the stream broke off: {data}"
    return event


def _whole_reply(choice: Mapping[str, Any], usage: Mapping[str, Any] | None) -> Reply:
    text, reasoning = _texts(choice)
    logprobs = (choice["logprobs"],) if choice.get("logprobs") else ()
    return Reply(text, (text,), choice["finish_reason"], choice, usage, reasoning, logprobs)


def _streamed_reply(events: list[dict[str, Any]]) -> Reply:
    chunks = [choice for event in events for choice in event["choices"]]
    texts = [_texts(chunk) for chunk in chunks]
    pieces = tuple(text for text, _ in texts if text)
    ends = [chunk for chunk in chunks if chunk.get("finish_reason")]
    assert len(ends) == 1, f"{len(ends)} events of the stream have a finish_reason, not one"
    usage = next((event["usage"] for event in reversed(events) if event.get("usage")), None)
    logprobs = tuple(chunk["logprobs"] for chunk in chunks if chunk.get("logprobs"))
    reasoning = "".join(reasoning for _, reasoning in texts)
    return Reply("".join(pieces), pieces, ends[0]["finish_reason"], ends[0], usage, reasoning, logprobs)


def _texts(choice: Mapping[str, Any]) -> tuple[str, str]:
    """What a choice says to the user, and what it thought before."""
    if "text" in choice:
        return choice["text"] or "", ""
    part = choice.get("message") or choice.get("delta") or {}
    return part.get("content") or "", part.get("reasoning_content") or part.get("reasoning") or ""
