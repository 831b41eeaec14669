"""An engine's face towards the event loop; the work is done by ``worker.Worker`` on a thread of its own."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from ...errors import ContextOverflow, EngineError, Overloaded, RequestError
from ...sampling import SamplingParams
from ..base import Capabilities, Tokenizer
from ..config import EngineConfig
from .generation import LocalGeneration
from .sampler import Sampler
from .scheduling import Beside, Scheduler, Tuner
from .sequence import EmbeddingJob, LocalSequence
from .threads import FixedThreads
from .worker import Worker

GATHER_S = 0.003
"""How long an idle engine waits for company after a request: prompts that arrive together are computed together."""
_GATHER_AT_MOST_S = 0.01


class LocalEngine:
    """An engine that computes in this process; see ``engines.base.Engine``.

    A subclass's constructor loads the model, sets ``tokenizer`` and ``capabilities`` and ends with ``_start``, which
    takes what schedules sequences over the model. Its ``_free`` frees the model, when the thread has ended.
    """

    tokenizer: Tokenizer
    capabilities: Capabilities

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._generations: set[LocalGeneration] = set()
        self._outbox: list[LocalSequence] = []
        self._gather_until = 0.0
        self._flush_handle: asyncio.TimerHandle | None = None
        self._num_open = self._num_embeddings = 0
        self._exit_error: EngineError | None = None
        self._failure_callbacks: list[Callable[[EngineError], None]] = []
        self._worker: Worker | None = None

    def _start(self, scheduler: Scheduler, *, tuner: Tuner | None = None, embedder: Beside | None = None) -> None:
        """Start the thread. ``embedder`` is there where ``capabilities.embeddings`` is."""
        self._running = scheduler.running
        self._worker = Worker(
            self.capabilities.name,
            scheduler,
            tuner or FixedThreads(1),
            embedder,
            on_ended=self._on_ended,
            on_exit=self._on_worker_exit,
        )
        scheduler.sink = self._worker
        self._worker.start()

    def _free(self) -> None:
        """Free the model. Called at least once, after the thread has ended."""

    def _sampler(self, params: SamplingParams) -> Sampler:
        if params.grammar is not None and not self.capabilities.grammar:
            raise RequestError(
                f"the {self.capabilities.name} engine has no grammars: leave out grammar and response_format, or "
                "serve a GGUF file",
                param="grammar",
            )
        return Sampler(
            params,
            vocab_size=self.tokenizer.vocab_size,
            eog_ids=self.tokenizer.eog_ids,
            context_length=self.capabilities.context_length,
        )

    def stats(self) -> dict[str, int]:
        """See ``engines.base.Engine.stats``. A snapshot without locks: counts may be a step apart."""
        return {
            "running": len(self._running),
            "waiting": self._num_open + self._num_embeddings - len(self._running),
            "context_length": self.capabilities.context_length,
        }

    @property
    def failed(self) -> EngineError | None:
        """Why the engine is gone, once it is."""
        return self._exit_error

    def on_failure(self, callback: Callable[[EngineError], None]) -> None:
        """Call back on the event loop when the engine's thread fails."""
        self._failure_callbacks.append(callback)

    def abort(self) -> None:
        """End everything that waits or runs with an EngineError that says the engine is shutting down."""
        reason = EngineError("the server is shutting down", is_shutdown=True)
        for generation in list(self._generations):
            generation.abort(reason)

    def generate(self, prompt_ids: Sequence[int], params: SamplingParams) -> LocalGeneration:
        """See ``engines.base.Engine.generate``."""
        loop = self._bind()
        prompt = list(prompt_ids)
        self._check_prompt(prompt, params)
        self._check_queue()
        sampler = self._sampler(params)
        room = self.capabilities.context_length - len(prompt)
        max_new = room if params.max_tokens is None else min(params.max_tokens, room)
        generation = LocalGeneration(lambda keep: self._cancel(seq, keep))
        seq = LocalSequence(prompt, params, sampler, max_new, generation)
        self._generations.add(generation)
        self._num_open += 1
        self._outbox.append(seq)
        self._send_soon(loop)
        return generation

    async def embed(self, ids: Sequence[int]) -> list[float]:
        """See ``engines.base.Engine.embed``."""
        loop = self._bind()
        if not self.capabilities.embeddings:
            raise RequestError(f"the {self.capabilities.name} engine makes no embeddings", param="model")
        self._check_ids(list(ids), "input")
        if len(ids) > self.capabilities.context_length:
            raise ContextOverflow(len(ids), self.capabilities.context_length, param="input")
        self._check_queue()
        future: asyncio.Future[list[float]] = loop.create_future()

        def resolve(result: list[float] | Exception) -> None:
            with suppress(RuntimeError):  # the loop has closed, and nobody waits any more
                loop.call_soon_threadsafe(_settle, future, result)

        job = EmbeddingJob(ids, resolve)
        self._num_embeddings += 1
        try:
            self._require_worker().submit(job)
            if self._exit_error:
                raise self._exit_error
            return await future
        finally:
            job.is_cancelled = True
            self._num_embeddings -= 1

    def close(self) -> None:
        """Stop after the current step and free the model."""
        if self._worker and self._worker.is_alive():
            self._worker.stop()
            self._worker.join()
        self._free()

    def _bind(self) -> asyncio.AbstractEventLoop:
        """The running loop, to which tokens are delivered from now on."""
        if self._exit_error:
            raise self._exit_error
        loop, worker = asyncio.get_running_loop(), self._require_worker()
        if worker.loop is not loop:
            if self._num_open and worker.loop is not None and not worker.loop.is_closed():
                raise EngineError("the engine serves one event loop at a time, and another one is using it")
            self._forget_all()
            worker.loop = loop
        return loop

    def _require_worker(self) -> Worker:
        assert self._worker is not None  # ``_start`` ends every constructor
        return self._worker

    def _forget_all(self) -> None:
        """The loop they lived on is closed: nobody waits for these sequences any more."""
        for generation in self._generations:
            generation.abandon()
        for seq in self._outbox:
            seq.sampler.close()
        self._generations.clear()
        self._outbox, self._flush_handle, self._num_open = [], None, 0

    def _check_queue(self) -> None:
        num_open = self._num_open + self._num_embeddings
        if num_open >= self._config.max_parallel + self._config.max_waiting:
            raise Overloaded(
                f"{num_open} requests are running or waiting, which is all that --max-parallel "
                f"{self._config.max_parallel} and --max-waiting {self._config.max_waiting} allow: try again later"
            )

    def _check_prompt(self, prompt: list[int], params: SamplingParams) -> None:
        self._check_ids(prompt, "prompt")
        needed = len(prompt) + (params.max_tokens != 0)
        if needed > self.capabilities.context_length:
            raise ContextOverflow(len(prompt), self.capabilities.context_length, param="prompt")
        for token_id in params.logit_bias:
            if not 0 <= token_id < self.tokenizer.vocab_size:
                raise RequestError(
                    f"logit_bias names token {token_id}, and the vocabulary ends at {self.tokenizer.vocab_size - 1}",
                    param="logit_bias",
                )

    def _check_ids(self, ids: list[int], param: str) -> None:
        if not ids:
            raise RequestError(f"{param} has no tokens: give at least one", param=param)
        if min(ids) < 0 or max(ids) >= self.tokenizer.vocab_size:
            wrong = next(i for i in ids if not 0 <= i < self.tokenizer.vocab_size)
            raise RequestError(
                f"{param} has token id {wrong}, and the vocabulary ends at {self.tokenizer.vocab_size - 1}",
                param=param,
            )

    def _send_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the outbox to the worker; at once when it is busy, else after a moment for company to arrive."""
        is_busy = self._num_open > len(self._outbox)
        now = loop.time()
        if self._flush_handle is None:
            self._gather_until = now if is_busy else now + _GATHER_AT_MOST_S
        else:
            self._flush_handle.cancel()
        self._flush_handle = loop.call_at(min(now + GATHER_S, self._gather_until), self._send)

    def _send(self) -> None:
        batch, self._outbox = self._outbox, []
        self._flush_handle = None
        if batch:
            self._require_worker().submit(batch)

    def _cancel(self, seq: LocalSequence, keep_tokens: int) -> None:
        seq.cancelled_at = len(seq.prompt) + keep_tokens

    def _on_ended(self, generations: list[LocalGeneration]) -> None:
        known = self._generations.intersection(generations)
        self._num_open -= len(known)
        self._generations -= known

    def _on_worker_exit(self, error: Exception | None) -> None:
        """Runs on the worker's thread when it ends."""
        reason = EngineError(f"the engine failed: {error}") if error else EngineError("the engine has stopped", True)
        self._exit_error = reason
        loop = self._require_worker().loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._fail_all, reason)

    def _fail_all(self, reason: EngineError) -> None:
        for generation in self._generations:
            generation.fail(reason)
        self._generations.clear()
        self._num_open = 0
        if not reason.is_shutdown:
            for callback in self._failure_callbacks:
                callback(reason)


def _settle(future: "asyncio.Future[list[float]]", result: list[float] | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
