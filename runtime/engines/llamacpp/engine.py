"""The engine's face towards the event loop; the work is done by ``worker.Worker`` on a thread of its own."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from ...errors import ContextOverflow, EngineError, ModelError, Overloaded, RequestError
from ...sampling import SamplingParams
from ..base import Capabilities
from .cache import CellCache
from .config import LlamaCppConfig
from .context import LlamaContext
from .embedder import Embedder
from .generation import LlamaGeneration
from .library import llama, load_model
from .sampler import Sampler
from .scheduler import Scheduler
from .sequence import EmbeddingJob, LlamaSequence
from .threads import FixedThreads, ThreadTuner, default_threads
from .tokenizer import LlamaTokenizer
from .worker import Worker

log = logging.getLogger(__name__)

GATHER_S = 0.003
"""How long an idle engine waits for company after a request: prompts that arrive together are computed together."""
_GATHER_AT_MOST_S = 0.01
_KEPT_PREFIXES = 48


class LlamaCppEngine:
    """A GGUF model in this process; see ``engines.base.Engine``."""

    def __init__(self, path: Path, config: LlamaCppConfig | None = None, *, pooling: int | None = None) -> None:
        """Load the model (blocking). Raises ModelError."""
        config = config or LlamaCppConfig()
        lib = llama()
        self._lib = lib
        self._model = load_model(path, config.gpu_layers)
        self._context: LlamaContext | None = None
        try:
            self._start(path, config, pooling)
        except BaseException:
            self._free()
            raise

    def _start(self, path: Path, config: LlamaCppConfig, pooling: int | None) -> None:
        lib, model = self._lib, self._model
        self.tokenizer = LlamaTokenizer(model)
        if lib.llama_model_has_encoder(model) or not lib.llama_model_has_decoder(model):
            raise ModelError(f"{path} is an encoder: it cannot generate, and tapster serves generative models")
        trained = lib.llama_model_n_ctx_train(model)
        context_length = config.context_length(trained)
        if trained and context_length > trained:
            log.warning("--context %d is more than the %d tokens the model was trained for", context_length, trained)
        is_shareable = not (lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model))
        max_seqs = config.max_parallel + 1 + (_KEPT_PREFIXES if is_shareable else 0)
        threads = config.threads or default_threads()
        self._check_memory(config.num_cells(context_length))
        self._context = context = LlamaContext(
            model,
            cells=config.num_cells(context_length),
            max_seqs=max_seqs,
            batch_tokens=config.batch_tokens,
            num_threads=threads,
        )
        self.tuner = FixedThreads(threads) if config.threads else ThreadTuner(threads)
        self.cache = CellCache(
            context,
            max_seqs,
            is_shareable=is_shareable,
            most_parked=context.cells // 4 if config.kept is None else config.kept,
        )
        self.scheduler = Scheduler(
            context,
            self.cache,
            self.tuner,
            eog_ids=self.tokenizer.eog_ids,
            max_parallel=config.max_parallel,
            batch_tokens=config.batch_tokens,
        )
        self.capabilities = Capabilities("llama.cpp", context_length, config.max_parallel)
        self._config = config
        self._generations: set[LlamaGeneration] = set()
        self._outbox: list[LlamaSequence] = []
        self._gather_until = 0.0
        self._flush_handle: asyncio.TimerHandle | None = None
        self._num_open = self._num_embeddings = 0
        self._exit_error: EngineError | None = None
        self._failure_callbacks: list[Callable[[EngineError], None]] = []
        self._worker = Worker(
            self.scheduler,
            Embedder(context, self.cache, pooling),
            self.tuner,
            on_ended=self._on_ended,
            on_exit=self._on_worker_exit,
        )
        self.scheduler.sink = self._worker
        self._worker.start()

    def _check_memory(self, cells: int) -> None:
        """Refuse a cache that cannot fit, instead of being killed for it. Keys and values are 16 bit."""
        lib, model = self._lib, self._model
        heads = max(1, lib.llama_model_n_head(model))
        width = lib.llama_model_n_embd(model) // heads * lib.llama_model_n_head_kv(model)
        needed = cells * lib.llama_model_n_layer(model) * 2 * width * 2
        free = psutil.virtual_memory().available
        if needed > free:
            raise ModelError(
                f"a cache of {cells} tokens takes {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free: "
                "lower --cells or --context"
            )

    def stats(self) -> dict[str, int]:
        """See ``engines.base.Engine.stats``. A snapshot without locks: counts may be a step apart."""
        return {
            "running": len(self.scheduler.running),
            "waiting": self._num_open + self._num_embeddings - len(self.scheduler.running),
            "preempted": self.scheduler.num_preempted,
            "cells_used": self.cache.used,
            "cells_total": self.cache.total,
            "kept_prefixes": self.cache.num_idle + self.cache.num_parked,
            "threads": self.tuner.current,
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

    def generate(self, prompt_ids: Sequence[int], params: SamplingParams) -> LlamaGeneration:
        """See ``engines.base.Engine.generate``."""
        loop = self._bind()
        prompt = list(prompt_ids)
        self._check_prompt(prompt, params)
        self._check_queue()
        sampler = Sampler(params, self.tokenizer, self.capabilities.context_length)
        room = self.capabilities.context_length - len(prompt)
        max_new = room if params.max_tokens is None else min(params.max_tokens, room)
        generation = LlamaGeneration(lambda keep: self._cancel(seq, keep))
        seq = LlamaSequence(prompt, params, sampler, max_new, generation)
        self._generations.add(generation)
        self._num_open += 1
        self._outbox.append(seq)
        self._send_soon(loop)
        return generation

    async def embed(self, ids: Sequence[int]) -> list[float]:
        """See ``engines.base.Engine.embed``."""
        loop = self._bind()
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
            self._worker.submit(job)
            if self._exit_error:
                raise self._exit_error
            return await future
        finally:
            job.is_cancelled = True
            self._num_embeddings -= 1

    def close(self) -> None:
        """Stop after the current step and free the model."""
        if self._worker.is_alive():
            self._worker.stop()
            self._worker.join()
        self._free()

    def _free(self) -> None:
        if self._context:
            self._context.close()
            self._context = None
        if self._model:
            self.tokenizer.handle = None
            self._lib.llama_model_free(self._model)
            self._model = None

    def _bind(self) -> asyncio.AbstractEventLoop:
        """The running loop, to which tokens are delivered from now on."""
        if self._exit_error:
            raise self._exit_error
        loop = asyncio.get_running_loop()
        if self._worker.loop is not loop:
            if self._num_open and self._worker.loop is not None and not self._worker.loop.is_closed():
                raise EngineError("the engine serves one event loop at a time, and another one is using it")
            self._forget_all()
            self._worker.loop = loop
        return loop

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
            self._worker.submit(batch)

    def _cancel(self, seq: LlamaSequence, keep_tokens: int) -> None:
        seq.cancelled_at = len(seq.prompt) + keep_tokens

    def _on_ended(self, generations: list[LlamaGeneration]) -> None:
        known = self._generations.intersection(generations)
        self._num_open -= len(known)
        self._generations -= known

    def _on_worker_exit(self, error: Exception | None) -> None:
        """Runs on the worker's thread when it ends."""
        reason = EngineError(f"the engine failed: {error}") if error else EngineError("the engine has stopped", True)
        self._exit_error = reason
        loop = self._worker.loop
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
