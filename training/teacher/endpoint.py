"""An OpenAI-compatible server, asked many things at once, which may refuse, falter and go away for a while."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from math import isfinite, nan
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ...runtime.errors import ConfigError, TrainingError
from .journal import finite_json

if TYPE_CHECKING:
    import httpx

Result = TypeVar("Result")
_BUSY = (429, 503, 529)
_FALTERING = (408, 409, 425, 500, 502, 504)


@dataclass(frozen=True, slots=True)
class Patience:
    """When to try again. Waiting times double from ``first_s`` to ``most_s``, each shortened by up to half at random;
    a server's ``Retry-After`` goes before. A request fails for good after ``attempts``; a server that is merely busy,
    once nobody has had an answer for ``busy_s`` seconds, and any that wants to be left alone for longer than that."""

    attempts: int = 8
    first_s: float = 0.5
    most_s: float = 60.0
    busy_s: float = 900.0

    def wait_s(self, failures: int) -> float:
        longest = min(self.most_s, self.first_s * 2 ** min(failures - 1, 32))
        return longest * random.uniform(0.5, 1.0)


class Refused(TrainingError):
    """The server does not want this request, now or later. ``status`` is HTTP's, ``code`` and ``param`` OpenAI's."""

    def __init__(self, message: str, status: int, code: str | None, param: str | None, said: str) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.said = status, code, param, said


class Endpoint:
    """The server at ``url``, with or without ``/v1`` at its end. At most ``concurrency`` requests run at once."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        concurrency: int = 16,
        timeout_s: float = 900.0,
        patience: Patience | None = None,
    ) -> None:
        self.url = base_url(url)
        self._key = api_key
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._patience = patience or Patience()
        self._gate = asyncio.Semaphore(concurrency)
        self._not_before_s = 0.0
        self._last_success_s = time.monotonic()

    async def __aenter__(self) -> Self:
        import httpx

        limits = httpx.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency)
        timeout = httpx.Timeout(self._timeout_s, connect=10.0)
        if self._key and not self._key.isascii():
            raise ConfigError("OPENAI_API_KEY holds a character that no key has: set it again")
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx.AsyncClient(limits=limits, timeout=timeout, headers=headers, follow_redirects=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def models(self) -> list[dict[str, Any]]:
        """What ``/v1/models`` lists."""
        found = (await self.ask("GET", "/models")).get("data")
        if not isinstance(found, list) or not found or not all(isinstance(one, dict) and "id" in one for one in found):
            raise TrainingError(f"{self.url}/models lists no model: is this an OpenAI-compatible server?")
        return found

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a request, however often it takes. Raises Refused, and TrainingError when patience ends."""
        async with self._gate:
            tries = Counter[bool]()  # busy ones and others count apart
            while True:
                await asyncio.sleep(max(0.0, self._not_before_s - time.monotonic()))
                answer, problem, is_busy, wait_s = await self._try(method, path, body)
                if answer is not None:
                    self._last_success_s = time.monotonic()
                    return answer
                tries[is_busy] += 1
                self._check_patience(tries[is_busy], problem, is_busy, wait_s)
                wait_s = self._patience.wait_s(tries[is_busy]) if wait_s is None else wait_s
                if is_busy:  # the others need not find out for themselves
                    self._not_before_s = max(self._not_before_s, time.monotonic() + wait_s)
                else:
                    await asyncio.sleep(wait_s)

    async def _try(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any] | None, str, bool, float | None]:
        """(answer, problem, whether the server is only busy, how long it wants to be left alone)."""
        import httpx

        try:
            reply = await self._client.request(method, self.url + path, json=body)
        except httpx.InvalidURL as error:
            raise ConfigError(f"the endpoint {self.url} is no address: {error}") from error
        except httpx.UnsupportedProtocol as error:
            raise ConfigError(f"the endpoint {self.url} is no address: give http://HOST:PORT/v1") from error
        except httpx.HTTPError as error:
            return None, str(error) or type(error).__name__, False, None
        if reply.status_code in (*_BUSY, *_FALTERING):
            said = f"{reply.status_code} {_error_of(reply)[0]}"
            return None, said, reply.status_code in _BUSY, retry_after_s(reply.headers.get("retry-after"))
        if reply.status_code != 200:
            raise self._refusal(reply)
        try:
            answer = finite_json(reply.content)
        except ValueError as error:
            return None, f"an answer that is no JSON ({error})", False, None
        return (answer, "", False, None) if isinstance(answer, dict) else (None, "no JSON object", False, None)

    def _check_patience(self, failures: int, problem: str, is_busy: bool, wait_s: float | None) -> None:
        if wait_s is not None and wait_s > self._patience.busy_s:
            raise TrainingError(f"the teacher at {self.url} wants to be left alone for {wait_s:.0f} s: {problem}")
        silent_s = time.monotonic() - self._last_success_s
        if silent_s < self._patience.busy_s if is_busy else failures < self._patience.attempts:
            return
        tried = f"for {silent_s:.0f} s" if is_busy else f"{failures} times"
        raise TrainingError(f"the teacher at {self.url} failed {tried}, at last with: {problem}")

    def _refusal(self, reply: "httpx.Response") -> Refused:
        said, code, param = _error_of(reply)
        advice = {
            401: ": set OPENAI_API_KEY to its key",
            403: ": set OPENAI_API_KEY to a key that may do this",
            404: ": check the endpoint and teacher.model",
        }.get(reply.status_code, "")
        message = f"the teacher at {self.url} refuses with {reply.status_code} {said}{advice}"
        return Refused(message, reply.status_code, code, param, said)


async def together(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """The results of all; the first error of one ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0]  # noqa: B904  the group says nothing more, and its traceback would be shown
    return [task.result() for task in tasks]


def base_url(url: str) -> str:
    """The address with ``/v1`` behind the host, unless it has a path of its own."""
    from urllib.parse import urlsplit

    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"the endpoint {url!r} is no address: give http://HOST:PORT/v1")
    return url.strip().rstrip("/") + ("" if parts.path.strip("/") else "/v1")


def retry_after_s(header: str | None) -> float | None:
    """Seconds from a ``Retry-After``, which is a number or a date; None where there is none that makes sense."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        seconds = _seconds_until(header)
    return max(0.0, seconds) if isfinite(seconds) else None


def _seconds_until(date: str) -> float:
    """NaN for what is no date."""
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, OverflowError):
        return nan


def _error_of(reply: "httpx.Response") -> tuple[str, str | None, str | None]:
    """Message, code and parameter of an error, as far as it has them."""
    try:
        error = reply.json()["error"]
        if isinstance(error, str):
            return error, None, None
        code, param = error.get("code"), error.get("param")
        return str(error["message"]), code if isinstance(code, str) else None, param
    except (ValueError, LookupError, TypeError, AttributeError):
        return " ".join(reply.text.split())[:200] or reply.reason_phrase, None, None
