"""Prompts of a known length in a model's own tokens, as a server of ours cuts them."""

import json

from .events import refusal
from .exchange import Address, connect, request_bytes
from .prompts import prompt


async def token_prompts(address: Address, count: int, num_tokens: int, seed: str) -> list[list[int]]:
    """``count`` different prompts of ``num_tokens`` tokens each."""
    return [await token_prompt(address, num_tokens, f"{seed}/{index}") for index in range(count)]


async def token_prompt(address: Address, num_tokens: int, seed: str) -> list[int]:
    """The first ``num_tokens`` tokens of a text that the seed makes: the same text for every model."""
    words, ids = num_tokens, []
    while len(ids) < num_tokens:
        ids = await _token_ids(address, prompt(words, seed))
        words *= 2
    return ids[:num_tokens]


async def _token_ids(address: Address, text: str) -> list[int]:
    """What the server's ``/tokenize`` says. Raises TargetError."""
    exchange = await connect(address)
    try:
        exchange.send(request_bytes(address, "POST", "/tokenize", json.dumps({"content": text}).encode()))
        await exchange.until_end()
    finally:
        exchange.close()
    if exchange.status != 200:
        raise refusal(exchange)
    return json.loads(b"".join(chunk for _, chunk in exchange.body))["tokens"]
