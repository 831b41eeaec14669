"""One sequence on its way: tried on one server after another until a token comes, and never again after that."""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

from ...errors import EngineError, TapsterError
from ...sampling import SamplingParams
from ..local.generation import LocalGeneration
from .ask import Card, check_health, describe_down, fetch_card
from .config import VllmConfig
from .exchange import Connection, LostConnection, request_bytes
from .refusal import Refusal
from .reply import Reply
from .request import request_body, request_fields
from .servers import Server, Servers

log = logging.getLogger(__name__)

_PATH = "/v1/completions"
_FIRST_PAUSE_S = 0.25
_PROXY_FAILED = (502, 504)


@dataclass(frozen=True, slots=True)
class Model:
    """What a call has to know of the model that every server has."""

    card: Card
    vocab_size: int
    eog_ids: Collection[int]


class Call:
    """Runs as a task; ``close`` ends it at once, which vLLM notices and stops computing."""

    def __init__(
        self,
        servers: Servers,
        config: VllmConfig,
        model: Model,
        prompt: list[int],
        params: SamplingParams,
        max_new: int,
    ) -> None:
        self.generation = LocalGeneration(lambda keep: self.close())
        self.on_over: Callable[[Call], None] = lambda call: None
        self._servers = servers
        self._config = config
        self._model = model
        self._prompt = prompt
        self._params = params
        self._max_new = max_new
        self._blocks = servers.blocks(prompt)
        self._connection: Connection | None = None
        self._reply: Reply | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a token has come."""
        return self._reply is not None and self._reply.has_started

    def start(self) -> None:
        """Begin, on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """End at once."""
        if self._connection is not None:
            self._connection.close()
        if self._task is not None:
            self._task.cancel()
        self.on_over(self)

    async def _run(self) -> None:
        try:
            self.generation.push(None, await self._finish_reason())
        except TapsterError as error:
            self.generation.fail(error)
        except Exception as error:
            log.exception("a request to vLLM failed in an unforeseen way")
            self.generation.fail(EngineError(f"the request to vLLM failed: {error!r}"))
        finally:
            self.on_over(self)

    async def _finish_reason(self) -> str:
        """How it ended. Raises TapsterError."""
        fields = request_fields(
            self._model.card.model_id, self._prompt, self._params, self._max_new, self._model.eog_ids
        )
        body = request_body(fields)
        reasons: dict[object, str] = {}
        for attempt in range(self._config.vllm_retries + 1):
            if attempt:
                await asyncio.sleep(_FIRST_PAUSE_S * 4 ** (attempt - 1))
            if finish := await self._try_each(body, reasons):
                return finish
        raise EngineError(describe_down(reasons))

    async def _try_each(self, body: bytes, reasons: dict[object, str]) -> str | None:
        """Try every server once; None when each connection was lost before the first token."""
        tried: list[Server] = []
        refusal: tuple[Refusal, Server] | None = None
        while server := self._servers.choose(self._blocks, tried):
            tried.append(server)
            try:
                answer = await self._try(server, body)
            except LostConnection as lost:
                server.failed(lost)
                reasons[server.address] = str(lost)
                continue
            if isinstance(answer, str):
                return answer
            refusal = answer, server
            if answer.is_for_everyone:
                break
        if refusal is not None:
            raise refusal[0].as_error(refusal[1].address)
        return None

    async def _try(self, server: Server, body: bytes) -> str | Refusal:
        server.num_open += 1
        server.num_taken += 1
        server.remember(self._blocks)
        try:
            if not server.is_checked:
                await self._check_model(server)
            reply = await self._exchange(server, body)
        finally:
            server.num_open -= 1
        return self._outcome(server, reply)

    async def _check_model(self, server: Server) -> None:
        """Whether a server that was down has come back with our model."""
        ours = self._model.card
        card = await fetch_card(server.address, self._config)
        if card.model_id != ours.model_id or card.context_length < ours.context_length:
            raise LostConnection(f"it has another model now: {card.model_id} with {card.context_length} tokens")
        server.is_checked = True

    async def _exchange(self, server: Server, body: bytes) -> Reply:
        """Send the request and see its answer to the end. Raises LostConnection and EngineError."""
        request = request_bytes(server.address, "POST", _PATH, self._config.api_key, body)
        while True:
            connection, is_kept = await server.connection(self._config.vllm_connect_timeout_s)
            self._connection = connection
            self._reply = reply = self._new_reply(server)
            try:
                connection.send(request, reply)
                await self._watch(server, reply)
            finally:
                self._connection = None
                server.give_back(connection)
            # A server may close a connection that waits for a request just when one is sent.
            if not (is_kept and reply.is_lost and not reply.has_status):
                return reply

    def _new_reply(self, server: Server) -> Reply:
        model = self._model
        return Reply(
            server.address,
            self.generation,
            self._prompt,
            self._params,
            self._max_new,
            model.eog_ids,
            model.vocab_size,
        )

    async def _watch(self, server: Server, reply: Reply) -> None:
        """Until the end. The first token may take its time while the server is well; the others may not."""
        while not await reply.wait(self._config.vllm_read_timeout_s):
            if reply.num_tokens:
                raise EngineError(
                    f"vLLM at {server.address} stopped in the middle of the answer: no token for "
                    f"{self._config.vllm_read_timeout_s:g} s"
                )
            await check_health(server.address, self._config)
            reply.excuse()

    def _outcome(self, server: Server, reply: Reply) -> str | Refusal:
        if reply.is_lost:
            lost = LostConnection("it closed the connection")
            if not reply.num_tokens:
                raise lost
            server.failed(lost)
            raise EngineError(f"vLLM at {server.address} closed the connection in the middle of the answer")
        if reply.error:
            raise reply.error
        if reply.refusal:
            if reply.refusal.status in _PROXY_FAILED:
                raise LostConnection(f"HTTP {reply.refusal.status}")
            return reply.refusal
        server.answered()
        assert reply.finish_reason is not None
        return reply.finish_reason
