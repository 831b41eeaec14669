"""Continuous batching: which tokens go into the next step, and what becomes of its logits.

Every step carries one token of each running sequence and fills up with prompt chunks (Orca, OSDI 2022; chunked
prefill as in Sarathi-Serve, OSDI 2024). The scheduler belongs to one thread and knows no event loop: what it has to
say it says to its ``sink``.
"""

import logging
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from ..local.choice import advance
from ..local.logprobs import score_prompt
from ..local.pacing import Pacer
from ..local.prefix import common_prefix
from ..local.scheduling import Sink
from ..local.sequence import LocalSequence
from ..local.threads import FixedThreads, ThreadTuner
from .cache import CellCache
from .context import NO_CELLS, Batch, LlamaContext
from .library import last_error

log = logging.getLogger(__name__)

SCORE_CHUNK = 64
"""Prompt tokens of one sequence whose logits are held at once: 64 rows of a 50,000-token vocabulary are 13 MB."""
WORTH_WAITING = 16
"""A prompt waits for another that is being computed when at least this many more tokens will be shared."""
HEADROOM = 32
"""Cells kept free for each running sequence's answer when another is admitted."""
_LOOK_AHEAD = 32


class Scheduler:
    """Waiting and running sequences over one llama.cpp context."""

    def __init__(
        self,
        context: LlamaContext,
        cache: CellCache,
        tuner: ThreadTuner | FixedThreads,
        *,
        eog_ids: frozenset[int],
        max_parallel: int,
        batch_tokens: int,
    ) -> None:
        self.sink: Sink
        self.waiting: deque[LocalSequence] = deque()
        self.running: list[LocalSequence] = []
        self._context = context
        self._cache = cache
        self._tuner = tuner
        self._batch = Batch(batch_tokens)
        self._pacer = Pacer()
        self._eog_ids = eog_ids
        self._max_parallel = max_parallel
        self.num_preempted = 0

    def step(self, before_compute: Callable[[], None]) -> None:
        """Advance every running sequence once. ``before_compute`` runs when the batch is ready, so that what the
        last step produced is handed over while the model computes."""
        self._reap()
        self._admit()
        if self.running:
            self._cache.park_one(self._running_ids(), spare_latest=False)
        plan = self._plan()
        before_compute()
        if plan:
            self._decode(plan)

    def side_budget(self, most: int) -> int:
        """How many tokens something beside the running sequences may compute in a step."""
        return self._pacer.prefill_budget(len(self.running), 1, most)

    def tidy(self) -> bool:
        """Use a moment without work: free one idle prefix's cells. Returns whether there may be more to do."""
        return self._cache.park_one((), spare_latest=True)

    def _reap(self) -> None:
        """Let go of what was cancelled, running or waiting."""
        for seq in [seq for seq in self.running if seq.cancelled_at is not None]:
            self._finish(seq, keep=seq.cancelled_at or 0)
            self.sink.ended(seq, "cancelled")
        for seq in [seq for seq in self.waiting if seq.cancelled_at is not None]:
            self.waiting.remove(seq)
            seq.sampler.close()
            self.sink.ended(seq, "cancelled")

    def _admit(self) -> None:
        for seq in list(self.waiting)[:_LOOK_AHEAD]:
            if len(self.running) >= self._max_parallel:
                return
            limit = 0 if seq.is_scoring else len(seq.tokens) - 1
            cached = self._cache.match(seq.tokens, limit)
            if self._is_worth_waiting(seq, cached, limit):
                continue
            held = self._cache.held(seq.tokens, limit, self._running_ids())
            if self.running and len(seq.tokens) - held > self._room_for_prompts():
                return
            self.waiting.remove(seq)
            seq.seq_id, seq.num_computed = self._cache.open(seq.tokens, limit)
            if seq.cached_tokens is None:
                seq.cached_tokens = seq.num_computed
            self.running.append(seq)

    def _is_worth_waiting(self, seq: LocalSequence, cached: int, limit: int) -> bool:
        """Whether a running prefill will soon have put more of this prompt into the cache."""
        if not self._cache.is_shareable:
            return False
        for other in self.running:
            if other.pending > 1 and not seq.is_scoring:
                shared = common_prefix(other.tokens, 0, seq.tokens, 0, limit)
                if shared - cached >= WORTH_WAITING and other.num_computed < shared:
                    return True
        return False

    def _room_for_prompts(self) -> int:
        """Cells left when everything admitted has its prompt in the cache."""
        promised = sum(seq.pending for seq in self.running)
        return self._cache.available(self._running_ids()) - promised - HEADROOM * len(self.running)

    def _running_ids(self) -> list[int]:
        return [seq.seq_id for seq in self.running if seq.seq_id is not None]

    def _plan(self) -> list[tuple[LocalSequence, int]]:
        """Fill the batch. Returns each sequence in it with its number of tokens, in batch order."""
        while True:
            decoding = [seq for seq in self.running if seq.pending == 1]
            prefilling = [seq for seq in self.running if seq.pending > 1]
            budget = self._pacer.prefill_budget(len(decoding), len(prefilling), self._batch.capacity - len(decoding))
            wanted = min(budget, sum(seq.pending for seq in prefilling))
            room = self._cache.reserve(len(decoding) + wanted) - len(decoding)
            if room >= 0 and (decoding or room > 0 or not prefilling):
                break
            self._preempt(self.running[-1])
        self._batch.clear()
        plan = [self._add(seq, 1) for seq in decoding]
        budget = min(budget, room)
        for seq in prefilling:
            take = min(seq.pending, budget, SCORE_CHUNK if seq.is_scoring else budget)
            if take > 0:
                plan.append(self._add(seq, take))
                budget -= take
        return plan

    def _add(self, seq: LocalSequence, count: int) -> tuple[LocalSequence, int]:
        assert seq.seq_id is not None
        start = seq.num_computed
        self._batch.add_run(
            seq.tokens[start : start + count],
            start,
            seq.seq_id,
            all_outputs=seq.is_scoring,
            last_output=count == seq.pending,
        )
        return seq, count

    def _decode(self, plan: list[tuple[LocalSequence, int]]) -> None:
        num_decode = sum(1 for seq, _ in plan if seq.pending == 1)
        num_prefill = self._batch.size - num_decode
        self._context.set_threads(self._tuner.choose())
        started = time.perf_counter()
        status = self._context.decode(self._batch)
        outputs = self._context.logits(self._num_outputs(plan)) if status == 0 and self._num_outputs(plan) else None
        step_s = time.perf_counter() - started
        if status == NO_CELLS and len(self.running) + self._cache.num_idle > 1:
            self._recover()
            return
        if status != 0:
            raise RuntimeError(f"llama_decode failed with status {status}: {last_error()}")
        self._pacer.observe(num_decode, num_prefill, step_s)
        self._tuner.observe(num_decode, num_prefill, step_s)
        self._cache.private += self._batch.size
        self._take_outputs(plan, outputs)

    def _num_outputs(self, plan: list[tuple[LocalSequence, int]]) -> int:
        return sum(count if seq.is_scoring else int(count == seq.pending) for seq, count in plan)

    def _take_outputs(self, plan: list[tuple[LocalSequence, int]], outputs: np.ndarray | None) -> None:
        row = 0
        for seq, count in plan:
            is_last = count == seq.pending
            num_rows = count if seq.is_scoring else int(is_last)
            rows = outputs[row : row + num_rows] if outputs is not None else None
            row += num_rows
            start = seq.num_computed
            seq.num_computed += count
            if rows is not None and seq.is_scoring:
                score_prompt(seq, start, rows)
            if start < len(seq.prompt) and seq.seq_id is not None:
                self._cache.register(seq.seq_id, seq.tokens, min(seq.num_computed, len(seq.prompt)))
            if is_last and rows is not None:
                self._sample(seq, rows[-1])

    def _sample(self, seq: LocalSequence, logits: np.ndarray) -> None:
        token, finish = advance(seq, logits, self._eog_ids)
        if finish:
            self._finish(seq, keep=len(seq.tokens))
        if token:
            self.sink.token(seq, token, finish)
        elif finish:
            self.sink.ended(seq, finish)

    def _finish(self, seq: LocalSequence, keep: int) -> None:
        assert seq.seq_id is not None
        self.running.remove(seq)
        self._cache.finish(seq.seq_id, seq.tokens, seq.num_computed, keep)
        seq.seq_id = None
        seq.sampler.close()

    def _preempt(self, seq: LocalSequence) -> None:
        """Take a sequence's cells away; it goes back to the head of the queue and is computed again later."""
        assert seq.seq_id is not None
        log.info("cache full: preempting a sequence of %d tokens", seq.num_computed)
        self.running.remove(seq)
        self._cache.discard(seq.seq_id, seq.num_computed)
        seq.seq_id, seq.num_computed = None, 0
        if seq.is_scoring:
            seq.prompt_logprobs.clear()
        self.waiting.appendleft(seq)
        self.num_preempted += 1

    def _recover(self) -> None:
        """llama.cpp found no room although the books say there is: give it some."""
        if self._cache.num_idle:
            self._cache.reserve(self._cache.total)
        elif len(self.running) > 1:
            self._preempt(self.running[-1])
