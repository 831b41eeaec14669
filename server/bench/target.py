"""The server under test: which model it has, which fields it takes, and requests sent to it all at once."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ...runtime.errors import TargetError
from .events import Answer, read_answer, refusal
from .exchange import Address, Exchange, connect, request_bytes
from .options import BenchOptions
from .prompts import prompt

# ignore_eos is what vLLM, llama-server and tapster call it; a server may refuse it, or know no usage in
# streams.
_OPTIONAL_FIELDS: tuple[dict[str, Any], ...] = (
    {"ignore_eos": True, "stream_options": {"include_usage": True}},
    {"stream_options": {"include_usage": True}},
    {},
)
_REFUSED = (400, 422)
WARM_UP_TOKENS = (16, 32)


class Target:
    """An OpenAI-compatible API. ``is_chat`` sends prompts as chats, for servers without completions."""

    def __init__(
        self,
        address: Address,
        model_id: str,
        *,
        api_key: str | None = None,
        is_chat: bool = False,
        timeout_s: float = 600.0,
    ) -> None:
        self.address = address
        self.model_id = model_id
        self.fields = _OPTIONAL_FIELDS[0]
        self._api_key = api_key
        self._is_chat = is_chat
        self._timeout_s = timeout_s

    def completion(self, prompt: str | list[int], new_tokens: int) -> bytes:
        """A request to go on from ``prompt``, a text or the server's own token ids."""
        if self._is_chat and isinstance(prompt, str):
            return self.chat([{"role": "user", "content": prompt}], new_tokens)
        return self._request("/completions", {"prompt": prompt}, new_tokens)

    def chat(self, messages: Sequence[dict[str, str]], new_tokens: int) -> bytes:
        """A request for the assistant's next turn."""
        return self._request("/chat/completions", {"messages": list(messages)}, new_tokens)

    def _request(self, path: str, fields: dict[str, Any], new_tokens: int) -> bytes:
        common = {"model": self.model_id, "max_tokens": new_tokens, "temperature": 0, "stream": True}
        body = json.dumps({**common, **fields, **self.fields}).encode()
        return request_bytes(self.address, "POST", self.address.base + path, body, self._api_key)

    async def run(self, requests: Sequence[bytes]) -> list[Answer]:
        """The answers to requests sent together, over connections that are open before the first is."""
        async with self.open(len(requests)) as exchanges:
            for exchange, request in zip(exchanges, requests, strict=True):
                exchange.send(request)
            return await finish(exchanges)

    @asynccontextmanager
    async def open(self, count: int) -> AsyncIterator[list[Exchange]]:
        """Connections that wait for their request. The time limit is for all that is done with them."""
        exchanges: list[Exchange] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                while len(exchanges) < count:
                    exchanges.append(await connect(self.address))
                yield exchanges
        except TimeoutError:
            raise TargetError(f"no whole answer from {self.address.url} within {self._timeout_s:g} s") from None
        finally:
            for exchange in exchanges:
                exchange.close()

    async def warm_up(self, with_chat: bool = False) -> list[Answer]:
        """Short answers that pay for what only happens once, one for each endpoint in use.

        Optional fields that the server refuses are left out from here on.
        """
        answers = await self._negotiate()
        if with_chat and not self._is_chat:
            prompt_tokens, new_tokens = WARM_UP_TOKENS
            opening = {"role": "user", "content": prompt(prompt_tokens, "warm-up")}
            answers += await self.run([self.chat([opening], new_tokens)])
        return answers

    async def settle(self) -> list[Answer]:
        """One short answer: a server that adapts to the machine's load can notice what it is now."""
        prompt_tokens, new_tokens = WARM_UP_TOKENS
        return await self.run([self.completion(prompt(prompt_tokens, "warm-up"), new_tokens)])

    async def _negotiate(self) -> list[Answer]:
        for self.fields in _OPTIONAL_FIELDS[:-1]:
            try:
                return await self.settle()
            except TargetError as error:
                if error.status not in _REFUSED:
                    raise
        self.fields = _OPTIONAL_FIELDS[-1]
        return await self.settle()


async def finish(exchanges: Sequence[Exchange]) -> list[Answer]:
    """Wait for every answer, and only then read what came."""
    for exchange in exchanges:
        await exchange.until_end()
    return [read_answer(exchange) for exchange in exchanges]


async def fetch(address: Address, path: str, *, api_key: str | None = None, timeout_s: float = 10.0) -> Exchange:
    """A finished GET. Raises TargetError when no answer comes; any HTTP status is an answer."""
    exchange = await connect(address)
    try:
        async with asyncio.timeout(timeout_s):
            exchange.send(request_bytes(address, "GET", path, api_key=api_key))
            await exchange.until_end()
    except TimeoutError:
        raise TargetError(f"no answer from {address.url} within {timeout_s:g} s") from None
    finally:
        exchange.close()
    return exchange


async def open_target(address: Address, options: BenchOptions) -> Target:
    """The target at an address, with the model that was asked for or is listed first. Raises TargetError."""
    model_id = options.model_id or await first_model(address, api_key=options.api_key)
    return Target(address, model_id, api_key=options.api_key, is_chat=options.is_chat, timeout_s=options.timeout_s)


async def first_model(address: Address, *, api_key: str | None = None) -> str:
    """The id of the first model that the server lists. Raises TargetError."""
    exchange = await fetch(address, f"{address.base}/models", api_key=api_key)
    if exchange.status != 200:
        raise refusal(exchange)
    try:
        return json.loads(b"".join(chunk for _, chunk in exchange.body))["data"][0]["id"]
    except (ValueError, LookupError, TypeError):
        raise TargetError(f"{address.url}/models lists no model: name one with --model") from None
