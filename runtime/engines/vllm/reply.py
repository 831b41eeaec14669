"""One answer of vLLM as it arrives: server-sent events to tokens, and every way in which it can go wrong."""

import asyncio
import json
from collections.abc import Collection
from math import isfinite
from typing import Any

from ...errors import EngineError, TapsterError
from ...sampling import SamplingParams
from ..base import Logprob, Token
from ..local.generation import LocalGeneration
from .refusal import Refusal

_TOKEN_ID = "token_id:"
_MOST_ERROR_BYTES = 1 << 16
_MOST_LINE_BYTES = 1 << 28
"""A scored prompt of a million tokens is one line."""
_END_OF_BODY_S = 0.02


class Reply:
    """Receives one answer and hands its tokens to ``generation`` from the socket's callback.

    ``is_over`` when nothing more is to be read: it ended with a ``finish_reason`` as it should, with an ``error`` that
    the client gets, with a ``refusal`` instead of an answer, or it ``is_lost`` because the connection ended.
    """

    def __init__(
        self,
        where: object,
        generation: LocalGeneration,
        prompt: list[int],
        params: SamplingParams,
        max_new: int,
        eog_ids: Collection[int],
        vocab_size: int,
    ) -> None:
        self.num_tokens = 0
        self.has_status = False
        self.finish_reason: str | None = None
        self.error: TapsterError | None = None
        self.refusal: Refusal | None = None
        self.is_over = self.is_lost = False
        self.has_started = False
        self._where = where
        self._params = params
        self._prompt = prompt
        self._max_new = max_new
        self._eog_ids = eog_ids
        self._vocab_size = vocab_size
        self._generation = generation
        self._loop = asyncio.get_running_loop()
        self._last_s = self._loop.time()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._rest = bytearray()
        self._status = 200
        self._retry_after: str | None = None

    async def wait(self, timeout_s: float) -> bool:
        """Wait for the end. False when nothing at all came for ``timeout_s`` seconds."""
        while not self._over.done():
            left = self._last_s + timeout_s - self._loop.time()
            if left <= 0:
                return False
            await asyncio.wait([self._over], timeout=left)
        return True

    def excuse(self) -> None:
        """Silence has been found to be no failure: start to measure it anew."""
        self._last_s = self._loop.time()

    def on_status(self, status: int, retry_after: str | None) -> None:
        self.has_status = True
        self._status, self._retry_after = status, retry_after
        self._last_s = self._loop.time()

    def on_body(self, data: bytes) -> None:
        if self.is_over:
            return
        self._last_s = self._loop.time()
        if self._status != 200:
            self._rest += data[: _MOST_ERROR_BYTES - len(self._rest)]
            return
        if b"\n" not in data:
            self._keep(data)
            return
        lines = (bytes(self._rest) + data).split(b"\n")
        self._rest = bytearray(lines.pop())
        for line in lines:
            if line.startswith(b"data:") and not self.is_over:
                self._read(line[5:].strip())

    def _keep(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) > _MOST_LINE_BYTES:
            self.error = self._nonsense("a line of it does not end")
            self._end()

    def on_end(self, is_whole: bool) -> None:
        if self.is_over:
            return
        if self._status != 200 and is_whole:
            self.refusal = Refusal.read(self._status, bytes(self._rest), self._retry_after)
        elif is_whole and not self.has_started and not self.error:
            self.error = self._nonsense("it has no events")
        elif not self.finish_reason:
            self.is_lost = not self.error
        self._end()

    def _read(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            if not self.finish_reason:
                self.error = self._nonsense("it ends without a finish_reason")
            # With the end of the body, which comes now, the connection can be used again.
            self._loop.call_later(_END_OF_BODY_S, self._end)
            return
        try:
            event = json.loads(payload)
            self._read_event(event)
        except TapsterError as error:
            self.error = error
            self._end()
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            self.error = self._nonsense(f"an event that cannot be read: {payload[:80].decode('utf-8', 'replace')!r}")
            self._end()

    def _read_event(self, event: dict[str, Any]) -> None:
        if "error" in event:
            raise Refusal.of_event(event["error"]).as_error(self._where)
        if usage := event.get("usage"):
            details = usage.get("prompt_tokens_details") or {}
            self._generation.cached_tokens = int(details.get("cached_tokens") or 0)
        for choice in event["choices"]:
            self._read_choice(choice)

    def _read_choice(self, choice: dict[str, Any]) -> None:
        ids, finish, logprobs = choice.get("token_ids"), choice.get("finish_reason"), choice.get("logprobs")
        if ids is None:
            raise EngineError(f"vLLM at {self._where} returns no token ids: it has to be version 0.11 or newer")
        if (echoed := choice.get("prompt_token_ids")) is not None and echoed != self._prompt:
            raise self._nonsense("another prompt than it was sent")
        start = 0
        if self._is_echoing:
            start = len(self._prompt)
            self._read_prompt(logprobs)
        self.has_started = True
        if self._max_new == 0:
            self.finish_reason = "length"
            return
        for index, token_id in enumerate(ids):
            is_last = finish is not None and index == len(ids) - 1
            self._take(token_id, logprobs, start + index, ends="eog" if is_last and finish == "stop" else None)
        if finish is not None and not self.finish_reason:
            self.finish_reason = _finish_reason(finish)
        elif finish is None and self.finish_reason:
            self._end()  # the server would go on

    @property
    def _is_echoing(self) -> bool:
        return not self.has_started and (self._params.prompt_logprobs is not None or self._max_new == 0)

    def _take(self, token_id: Any, logprobs: dict[str, Any] | None, index: int, ends: str | None) -> None:
        """One more token; what a server sends after the end that we know is not read."""
        if self.finish_reason:
            return
        self._check_id(token_id)
        is_eog = ends == "eog" or token_id in self._eog_ids
        self.num_tokens += 1
        wanted = self._params.top_logprobs
        token = Token(token_id, is_eog) if wanted is None else _scored(token_id, is_eog, logprobs or {}, index, wanted)
        self.finish_reason = "eog" if is_eog else "length" if self.num_tokens >= self._max_new else None
        # The end itself is told when it is over, and the counts that come last are known.
        self._generation.push(token, None)

    def _check_id(self, token_id: Any) -> None:
        if type(token_id) is not int or not 0 <= token_id < self._vocab_size:
            raise self._nonsense(f"token id {token_id!r}, and the vocabulary ends at {self._vocab_size - 1}")

    def _read_prompt(self, logprobs: dict[str, Any] | None) -> None:
        wanted = self._params.prompt_logprobs
        if wanted is None:
            return
        if not logprobs or len(logprobs["token_logprobs"]) < len(self._prompt):
            raise self._nonsense("no log-probabilities of the prompt")
        scored = [_scored(token, False, logprobs, index, wanted) for index, token in enumerate(self._prompt) if index]
        self._generation.prompt_logprobs = [Token(self._prompt[0]), *scored]

    def _nonsense(self, what: str) -> EngineError:
        return EngineError(f"the answer of vLLM at {self._where} makes no sense: {what}")

    def _end(self) -> None:
        self.is_over = True
        self._rest.clear()
        if not self._over.done():
            self._over.set_result(None)


def _scored(token_id: int, is_eog: bool, logprobs: dict[str, Any], index: int, wanted: int) -> Token:
    """A token with its log-probability; vLLM lists the chosen token besides the most likely ones."""
    logprob = float(logprobs["token_logprobs"][index])
    if not isfinite(logprob):
        raise ValueError(logprob)
    top: tuple[Logprob, ...] = ()
    if wanted:
        found = logprobs["top_logprobs"][index].items()
        pairs = sorted(((int(name.removeprefix(_TOKEN_ID)), value) for name, value in found), key=_rank)
        top = tuple(Logprob(other, float(value)) for other, value in pairs[:wanted])
    return Token(token_id, is_eog, logprob, top)


def _rank(pair: tuple[int, float]) -> tuple[float, int]:
    return -pair[1], pair[0]


def _finish_reason(vllms: str) -> str:
    if vllms == "stop":
        return "eog"
    if vllms == "length":
        return "length"
    raise EngineError(f"vLLM broke the answer off: finish_reason {vllms}")
