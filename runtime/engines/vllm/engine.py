"""The engine for those who outgrow one machine: its tokens are made by vLLM servers; see ``engines.base.Engine``."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from ...errors import ConfigError, ContextOverflow, EngineError, ModelError, Overloaded, RequestError
from ...profile import ModelProfile
from ...sampling import SamplingParams
from ..base import Capabilities, Tokenizer
from ..local.generation import LocalGeneration
from .address import Address
from .ask import Card, check_version, fetch_cards, fetch_tokens, run_blocking
from .call import Call, Model
from .config import VllmConfig
from .exchange import LostConnection
from .profile import RemoteProfile
from .request import check_params
from .servers import Servers
from .supervisor import Supervisor

log = logging.getLogger(__name__)

SAMPLE = "The quick brown fox, 12345 + 6.78!\n\n\tdef f(x):  return 'naïve café' 東京 Привет 👋🏽"
"""Words, digits, spaces, scripts and an emoji: tokenizers that split all of this alike are the same one."""


class VllmEngine:
    """A client of the servers in ``config.addresses``, or of one that it starts on the profile's checkpoint."""

    def __init__(
        self, profile: ModelProfile, config: VllmConfig | None = None, *, tokenizer: Tokenizer | None = None
    ) -> None:
        """Find the servers, or start one (blocking). Raises ModelError and ConfigError."""
        config = config or VllmConfig()
        if isinstance(profile, RemoteProfile):
            config = replace(config, addresses=profile.addresses, model_id=profile.model_id)
        self._config = config
        self._calls: set[Call] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._exit_error: EngineError | None = None
        self._failure_callbacks: list[Callable[[EngineError], None]] = []
        self._supervisor: Supervisor | None = None
        self.tokenizer = tokenizer or _open_tokenizer(profile)
        if not config.addresses:
            self._supervisor = Supervisor(profile.path, config, on_exit=self._on_server_exit)
            self._config = config = self._supervisor.start()
        try:
            self._connect(config)
        except BaseException:
            self.close()
            raise

    def _connect(self, config: VllmConfig) -> None:
        cards = run_blocking(fetch_cards(config))
        card = _common(cards)
        if config.context and config.context > card.context_length:
            raise ConfigError(f"--context {config.context} is more than the {card.context_length} tokens that vLLM has")
        run_blocking(self._check_servers(cards))
        self._servers = Servers(config.addresses)
        for server in self._servers.all:
            server.is_checked = server.address in cards
            if not server.is_checked:
                server.failed("does not answer")
        self._model = Model(card, self.tokenizer.vocab_size, self.tokenizer.eog_ids)
        self.capabilities = Capabilities(
            "vllm",
            config.context or card.context_length,
            config.max_parallel,
            embeddings=False,
        )

    async def _check_servers(self, cards: dict[Address, Card]) -> None:
        """Token ids of another tokenizer would be answered with fluent nonsense, and an old vLLM ignores fields."""
        ours = self.tokenizer.encode(SAMPLE)
        for address, card in cards.items():
            try:
                await check_version(address, self._config)
                theirs = await fetch_tokens(address, card, SAMPLE, self._config)
            except LostConnection as lost:
                raise ModelError(f"vLLM at {address}: {lost}") from None
            if theirs is not None and theirs != ours:
                raise ModelError(
                    f"vLLM at {address} splits a text otherwise than the tokenizer here: give --tokenizer the folder "
                    f"or the name on the Hub that {card.model_id} was loaded from"
                )

    def generate(self, prompt_ids: Sequence[int], params: SamplingParams) -> LocalGeneration:
        """See ``engines.base.Engine.generate``. What only the server can refuse is raised by the iteration."""
        self._bind()
        prompt = list(prompt_ids)
        self._check_prompt(prompt, params)
        check_params(params)
        self._check_queue()
        room = self.capabilities.context_length - len(prompt)
        max_new = room if params.max_tokens is None else min(params.max_tokens, room)
        call = Call(self._servers, self._config, self._model, prompt, params, max_new)
        call.on_over = self._calls.discard
        self._calls.add(call)
        call.start()
        return call.generation

    async def embed(self, ids: Sequence[int]) -> list[float]:
        """See ``engines.base.Engine.embed``. vLLM serves a model for text or for embeddings, never for both."""
        raise RequestError("the vllm engine makes no embeddings: serve the model with another engine", param="model")

    def stats(self) -> dict[str, int]:
        """See ``engines.base.Engine.stats``."""
        running = sum(call.is_running for call in self._calls)
        return {
            "running": running,
            "waiting": len(self._calls) - running,
            "servers": len(self._servers.all),
            "servers_up": sum(server.is_up for server in self._servers.all),
            "context_length": self.capabilities.context_length,
        }

    @property
    def failed(self) -> EngineError | None:
        """Why the engine is gone, once it is: closed, or the server that it had started has ended."""
        return self._exit_error

    def on_failure(self, callback: Callable[[EngineError], None]) -> None:
        """Call back on the event loop when a server that tapster started has ended; others may go and come."""
        self._failure_callbacks.append(callback)
        if self._loop is None:
            self._loop = _running_loop()  # it may end before anyone has asked for anything
        if self._exit_error and not self._exit_error.is_shutdown and self._loop is not None:
            self._loop.call_soon_threadsafe(callback, self._exit_error)

    def abort(self) -> None:
        """End everything that waits or runs with an EngineError that says the engine is shutting down."""
        self._end_all(EngineError("the server is shutting down", is_shutdown=True))

    def close(self) -> None:
        """Let go of the servers, and stop the one that was started here."""
        self._exit_error = self._exit_error or EngineError("the engine has stopped", is_shutdown=True)
        loop = self._loop
        if loop is not None and not loop.is_closed():
            if loop is _running_loop():
                self._let_go()
            elif loop.is_running():
                loop.call_soon_threadsafe(self._let_go)
        if self._supervisor is not None:
            self._supervisor.stop()

    def _let_go(self) -> None:
        assert self._exit_error is not None
        self._end_all(self._exit_error)
        self._servers.close()

    def _end_all(self, reason: EngineError) -> None:
        for call in list(self._calls):
            call.generation.abort(reason)

    def _bind(self) -> None:
        """Connections live on one event loop: the running one."""
        if self._exit_error:
            raise self._exit_error
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._calls and self._loop is not None and not self._loop.is_closed():
            raise EngineError("the engine serves one event loop at a time, and another one is using it")
        self._calls.clear()
        self._servers = self._servers.anew()
        self._loop = loop

    def _check_queue(self) -> None:
        if len(self._calls) >= self._config.max_parallel + self._config.max_waiting:
            raise Overloaded(
                f"{len(self._calls)} requests are open, which is all that --max-parallel {self._config.max_parallel} "
                f"and --max-waiting {self._config.max_waiting} allow: try again later"
            )

    def _check_prompt(self, prompt: list[int], params: SamplingParams) -> None:
        size = self.tokenizer.vocab_size
        if not prompt:
            raise RequestError("prompt has no tokens: give at least one", param="prompt")
        for param, ids in (("prompt", prompt), ("logit_bias", params.logit_bias)):
            wrong = next((token for token in ids if not 0 <= token < size), None)
            if wrong is not None:
                raise RequestError(f"{param} has token id {wrong}, and the vocabulary ends at {size - 1}", param=param)
        if len(prompt) + 1 > self.capabilities.context_length:  # it makes a token to score a prompt, too
            raise ContextOverflow(len(prompt), self.capabilities.context_length, param="prompt")

    def _on_server_exit(self, reason: str) -> None:
        """Runs on the supervisor's thread."""
        error = EngineError(reason)
        self._exit_error = self._exit_error or error
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._fail, error)

    def _fail(self, error: EngineError) -> None:
        self._end_all(error)
        for callback in self._failure_callbacks:
            callback(error)


def _open_tokenizer(profile: ModelProfile) -> Tokenizer:
    from ...tokenizer.folder import open_tokenizer

    return open_tokenizer(profile)


def _common(cards: dict[Address, Card]) -> Card:
    """The model that all have, with the context that fits into each."""
    card = next(iter(cards.values()))
    return replace(card, context_length=min(each.context_length for each in cards.values()))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
