"""Short questions to a server: which model it has, whether it is well, how it splits a text."""

import asyncio
import json
import re
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from ...errors import ModelError
from .address import Address
from .config import VllmConfig
from .exchange import LostConnection, connect, request_bytes
from .refusal import Refusal

Value = TypeVar("Value")
_ANSWER_S = 20.0
_LEAST_MINOR = 11


@dataclass(frozen=True, slots=True)
class Card:
    """A model as a server lists it. ``root`` is the folder or name on the Hub it was loaded from."""

    model_id: str
    root: str | None
    context_length: int


class _Whole:
    """Collects an answer."""

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()
        self.over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def on_status(self, status: int, retry_after: str | None) -> None:
        self.status = status

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_end(self, is_whole: bool) -> None:
        if not self.over.done():
            self.over.set_result(is_whole)


async def ask(
    address: Address, path: str, config: VllmConfig, fields: dict[str, Any] | None = None
) -> tuple[int, bytes]:
    """Status and body of a GET, or with ``fields`` of a POST, over a connection of its own. Raises LostConnection."""
    body = json.dumps(fields).encode() if fields is not None else b""
    connection = await connect(address, config.vllm_connect_timeout_s)
    answer = _Whole()
    try:
        async with asyncio.timeout(max(_ANSWER_S, config.vllm_connect_timeout_s)):
            method = "POST" if fields is not None else "GET"
            connection.send(request_bytes(address, method, path, config.api_key, body), answer)
            if not await answer.over:
                raise LostConnection(f"closed the connection instead of answering {path}")
    except TimeoutError:
        raise LostConnection(f"no answer to {path} within {_ANSWER_S:g} s") from None
    finally:
        connection.close()
    return answer.status, bytes(answer.body)


async def fetch_card(address: Address, config: VllmConfig) -> Card:
    """The model that a server has. Raises LostConnection, or ModelError when it has none that will do."""
    status, body = await ask(address, "/v1/models", config)
    if status in (502, 503, 504):
        raise LostConnection(f"HTTP {status}")
    if status != 200:
        raise ModelError(str(Refusal.read(status, body).as_error(address)))
    try:
        cards = _cards(json.loads(body)["data"])
    except (ValueError, TypeError, LookupError, RecursionError):
        raise ModelError(f"{address} is no vLLM: {address}/v1/models lists no models with a max_model_len") from None
    wanted = config.model_id
    found = next((card for card in cards if wanted in (None, card.model_id)), None)
    if found is None:
        names = ", ".join(card.model_id for card in cards) or "none"
        raise ModelError(f"vLLM at {address} has no model {wanted or ''}: it has {names}")
    return found


def _cards(entries: list[dict[str, Any]]) -> list[Card]:
    """An adapter is listed without a context, and with a root of its own: both are those of the model it is for."""
    cards: list[Card] = []
    for entry in entries:
        root, context_length = entry.get("root"), entry.get("max_model_len")
        if entry.get("parent") and cards:
            root, context_length = cards[0].root, cards[0].context_length
        if not isinstance(entry["id"], str) or type(context_length) is not int or context_length < 1:
            raise TypeError(entry)
        cards.append(Card(entry["id"], root if isinstance(root, str) else None, context_length))
    return cards


async def fetch_tokens(address: Address, card: Card, text: str, config: VllmConfig) -> list[int] | None:
    """How the server splits a text; None where it does not say. Raises LostConnection."""
    fields = {"model": card.model_id, "prompt": text, "add_special_tokens": False}
    status, body = await ask(address, "/tokenize", config, fields)
    try:
        return list(json.loads(body)["tokens"]) if status == 200 else None
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


async def check_version(address: Address, config: VllmConfig) -> None:
    """ModelError for a vLLM that would ignore what it is asked for. Raises LostConnection."""
    status, body = await ask(address, "/version", config)
    found = re.match(rb'\s*\{\s*"version"\s*:\s*"0\.(\d+)\.\d', body) if status == 200 else None
    if found and int(found[1]) < _LEAST_MINOR:
        raise ModelError(f"vLLM at {address} has version 0.{int(found[1])}: it has to be 0.{_LEAST_MINOR} or newer")


async def check_health(address: Address, config: VllmConfig) -> None:
    """Raises LostConnection for a server that is gone, hangs, or says that its engine is dead."""
    status, _ = await ask(address, "/health", config)
    if status >= 500:
        raise LostConnection(f"it is not well (HTTP {status})")


def run_blocking(work: Coroutine[Any, Any, Value]) -> Value:
    """Run it to its end on a loop of its own, also where this thread runs one. Raises what it raises."""
    result: list[Value] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            result.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            errors.append(error)

    thread = threading.Thread(target=run, name="tapster-vllm-ask", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]


async def fetch_cards(config: VllmConfig) -> dict[Address, Card]:
    """The model's card at every server that is up. ModelError when none is, or when they have different models."""
    answers = await asyncio.gather(*(fetch_card(each, config) for each in config.addresses), return_exceptions=True)
    cards: dict[Address, Card] = {}
    down: dict[Address, str] = {}
    for address, answer in zip(config.addresses, answers, strict=True):
        if isinstance(answer, Card):
            cards[address] = answer
        elif isinstance(answer, LostConnection):
            down[address] = str(answer)
        else:
            raise answer
    if not cards:
        raise ModelError(f"{describe_down(down)}; is vLLM running, and has it finished loading?")
    _check_same(cards)
    return cards


def describe_down(reasons: dict[Any, str]) -> str:
    """One line for servers of which none answers."""
    each = "; ".join(f"{address}: {reason}" for address, reason in reasons.items())
    return (
        f"vLLM does not answer: {each}" if len(reasons) == 1 else f"none of {len(reasons)} vLLM servers answers: {each}"
    )


def _check_same(cards: dict[Address, Card]) -> None:
    (first, card), *others = cards.items()
    for address, other in others:
        if other.model_id != card.model_id:
            raise ModelError(
                f"the vLLM servers have different models: {first} has {card.model_id}, {address} has {other.model_id}"
            )
