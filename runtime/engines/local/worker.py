"""The one thread that owns a model, and its mailbox."""

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NamedTuple

from ...errors import EngineError
from ..base import Token
from .generation import LocalGeneration
from .scheduling import Beside, Scheduler, Tuner
from .sequence import EmbeddingJob, LocalSequence

log = logging.getLogger(__name__)


class _Event(NamedTuple):
    generation: LocalGeneration
    token: Token | None
    finish: str | None
    error: EngineError | None = None


class Worker(threading.Thread):
    """Runs steps while there is work and sleeps otherwise. A step's tokens reach the event loop in one call."""

    def __init__(
        self,
        name: str,
        scheduler: Scheduler,
        tuner: Tuner,
        embedder: Beside | None,
        *,
        on_ended: Callable[[list[LocalGeneration]], None],
        on_exit: Callable[[Exception | None], None],
    ) -> None:
        super().__init__(name=f"tapster-{name}", daemon=True)
        self._scheduler = scheduler
        self._embedder = embedder
        self._tuner = tuner
        self._on_ended = on_ended
        self._on_exit = on_exit
        self._inbox: SimpleQueue[list[LocalSequence] | EmbeddingJob | None] = SimpleQueue()
        self._events: list[_Event] = []
        self.loop: asyncio.AbstractEventLoop | None = None

    # Called from the event loop's thread.

    def submit(self, work: list[LocalSequence] | EmbeddingJob) -> None:
        """Queue sequences, all at once, or an embedding."""
        self._inbox.put(work)

    def stop(self) -> None:
        """End after the current step."""
        self._inbox.put(None)

    # Called by the scheduler, on this thread.

    def token(self, seq: LocalSequence, token: Token, finish: str | None) -> None:
        """See ``scheduling.Sink``."""
        self._announce(seq)
        self._events.append(_Event(seq.generation, token, finish))

    def ended(self, seq: LocalSequence, finish: str) -> None:
        """See ``scheduling.Sink``."""
        self._announce(seq)
        self._events.append(_Event(seq.generation, None, finish))

    def failed(self, seq: LocalSequence, reason: str) -> None:
        """See ``scheduling.Sink``."""
        self._events.append(_Event(seq.generation, None, None, EngineError(reason)))

    def run(self) -> None:
        """The engine's life: until ``stop`` or a failure, which every caller is told of."""
        error: Exception | None = None
        try:
            while self._receive():
                self._scheduler.step(self._flush)
                if self._embedder:
                    self._embedder.step()
                if not self._has_work():
                    self._flush()
        except Exception as failure:
            log.exception("the engine failed")
            error = failure
        self._flush()
        self._on_exit(error)
        self._let_go(EngineError("the engine has stopped", is_shutdown=error is None))

    def _let_go(self, reason: EngineError) -> None:
        """Tell the embeddings that will never be made and free the samplers, those still in the mailbox too."""
        jobs = list(self._embedder.jobs) if self._embedder else []
        sequences = [*self._scheduler.running, *self._scheduler.waiting]
        while not self._inbox.empty():
            work = self._inbox.get()
            if isinstance(work, EmbeddingJob):
                jobs.append(work)
            elif work is not None:
                sequences.extend(work)
        for job in jobs:
            job.resolve(reason)
        for seq in sequences:
            seq.sampler.close()

    def _has_work(self) -> bool:
        jobs = self._embedder.jobs if self._embedder else ()
        return bool(self._scheduler.running or self._scheduler.waiting or jobs)

    def _receive(self) -> bool:
        """Take in what has arrived, waiting for it when there is nothing to do. False to stop."""
        was_idle = may_tidy = not self._has_work()
        while True:
            is_resting = not self._has_work() and not may_tidy
            try:
                work = self._inbox.get(block=is_resting, timeout=self._tuner.look_every_s)
            except Empty:
                if self._has_work():
                    return True
                if is_resting:
                    self._tuner.rest()
                else:
                    may_tidy = self._scheduler.tidy()
                continue
            if work is None:
                return False
            if isinstance(work, EmbeddingJob):
                assert self._embedder is not None  # the engine's face refuses it otherwise
                self._embedder.jobs.append(work)
            else:
                self._scheduler.waiting.extend(work)
            if was_idle:
                self._tuner.resume()
                was_idle = False

    def _announce(self, seq: LocalSequence) -> None:
        """Before a sequence's first event: what is known of its prompt."""
        generation = seq.generation
        if seq.num_generated <= 1:
            generation.cached_tokens = seq.cached_tokens or 0
            if seq.params.prompt_logprobs is not None:
                generation.prompt_logprobs = seq.prompt_logprobs

    def _flush(self) -> None:
        """Hand everything over in one call."""
        if not self._events or self.loop is None:
            return
        events, self._events = self._events, []
        try:
            self.loop.call_soon_threadsafe(self._deliver, events)
        except RuntimeError:
            log.debug("the event loop is closed: %d tokens dropped", len(events))

    def _deliver(self, events: list[_Event]) -> None:
        ended = []
        for generation, token, finish, error in events:
            if error:
                generation.fail(error)
            else:
                generation.push(token, finish)
            if finish or error:
                ended.append(generation)
        if ended:
            self._on_ended(ended)
