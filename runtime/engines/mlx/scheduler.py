"""Continuous batching with mlx-lm's caches.

A step starts the next tokens of all that decode, delivers what the last step chose, and then computes some tokens of
prompts, so many that running streams do not stall. A prompt is computed in chunks with a cache of its own, without
logits; its last token is the first that decodes.
"""

import logging
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from ..base import Token
from ..local.choice import append, next_token
from ..local.logprobs import score_prompt
from ..local.pacing import Pacer
from ..local.prefix import common_prefix
from ..local.scheduling import Sink
from ..local.sequence import LocalSequence
from . import caches
from .batch import DecodeBatch, Step
from .caches import Caches
from .model import MlxModel
from .prefixes import Prefixes

log = logging.getLogger(__name__)

SCORE_CHUNK = 64
"""Prompt tokens whose logits are held at once: 64 rows of a 50,000-token vocabulary are 13 MB."""
WORTH_WAITING = 16
"""A prompt waits for another that is being computed, or copies from one that runs, for at least this many tokens."""
HEADROOM = 32
"""Tokens for which there must be room in each running answer when another sequence is admitted."""
_LOOK_AHEAD = 32
_TIDY_EVERY = 256


class MlxScheduler:
    """Waiting and running sequences over one model; see ``local.scheduling.Scheduler``.

    ``most_tokens`` is how many tokens all running sequences may have together.
    """

    def __init__(
        self,
        model: MlxModel,
        *,
        vocab_size: int,
        eog_ids: frozenset[int],
        max_parallel: int,
        batch_tokens: int,
        most_tokens: int,
        kept_bytes: int,
    ) -> None:
        self.sink: Sink
        self.waiting: deque[LocalSequence] = deque()
        self.running: list[LocalSequence] = []
        self.prefixes = Prefixes(kept_bytes)
        self.num_preempted = 0
        self._model = model
        self._vocab_size = vocab_size
        self._batch = DecodeBatch(model.network, vocab_size, eog_ids)
        self._prefilling: dict[LocalSequence, Caches] = {}
        self._pacer = Pacer()
        self._eog_ids = eog_ids
        self._max_parallel = max_parallel
        self._batch_tokens = batch_tokens
        self._most_tokens = most_tokens
        self._num_steps = 0

    @property
    def num_tokens(self) -> int:
        """Tokens of all running sequences."""
        return sum(len(seq.tokens) for seq in self.running)

    def step(self, before_compute: Callable[[], None]) -> None:
        """See ``local.scheduling.Scheduler.step``."""
        with self._model.stream():
            self._reap()
            self._make_room()
            self._admit()
            self._compute(before_compute)

    def tidy(self) -> bool:
        """A moment without work: give memory back that mlx keeps for the next step."""
        self._model.clear_cache()
        return False

    def free(self) -> None:
        """Let the model and all caches go; nothing may be computed any more."""
        self.running.clear()
        self.waiting.clear()
        self._prefilling.clear()
        self.prefixes.shrink(0)
        self._batch.free()
        self._model.free()

    def _compute(self, before_compute: Callable[[], None]) -> None:
        chunks = self._chunks()
        started = time.perf_counter()
        num_decode = len(self._batch)
        step = self._batch.start(compute=not self._is_over()) if num_decode else None
        before_compute()
        if step:
            self._deliver(step)
        for seq, count in chunks:
            self._prefill(seq, count)
        if num_decode or chunks:
            self._pacer.observe(num_decode, sum(count for _, count in chunks), time.perf_counter() - started)
        self._join()
        self._num_steps += 1
        if chunks or self._num_steps % _TIDY_EVERY == 0:
            self._model.clear_cache()

    def _is_over(self) -> bool:
        """Whether the tokens that are chosen and not delivered yet are the last of everyone."""
        return all(new and seq.num_generated + 1 >= seq.max_new for seq, new in self._batch.pending())

    def _reap(self) -> None:
        """Let go of what was cancelled, running or waiting."""
        ended = [seq for seq in self.running if seq.cancelled_at is not None]
        self._finish([(seq, seq.cancelled_at or 0) for seq in ended])
        for seq in [seq for seq in self.waiting if seq.cancelled_at is not None]:
            self.waiting.remove(seq)
            seq.sampler.close()
            ended.append(seq)
        for seq in ended:
            self.sink.ended(seq, "cancelled")

    def _make_room(self) -> None:
        """Take the caches of the youngest sequences away when the running ones have grown too large together."""
        while len(self.running) > 1 and self.num_tokens + len(self.running) > self._most_tokens:
            self._preempt(self.running[-1])

    def _preempt(self, seq: LocalSequence) -> None:
        """It goes back to the head of the queue and is computed again later."""
        log.info("memory is full: preempting a sequence of %d tokens", seq.num_computed)
        self.running.remove(seq)
        self._prefilling.pop(seq, None)
        self._batch.leave([seq])
        seq.num_computed = 0
        if seq.is_scoring:
            seq.prompt_logprobs.clear()
        self.waiting.appendleft(seq)
        self.num_preempted += 1

    def _admit(self) -> None:
        for seq in list(self.waiting)[:_LOOK_AHEAD]:
            if len(self.running) >= self._max_parallel:
                return
            needed = len(seq.tokens) + HEADROOM * (len(self.running) + 1)
            if self.running and self.num_tokens + needed > self._most_tokens:
                return
            limit = 0 if seq.is_scoring else len(seq.tokens) - 1
            cached = self.prefixes.match(seq.tokens, limit)
            if self._is_worth_waiting(seq, cached, limit):
                continue
            self.waiting.remove(seq)
            own, seq.num_computed = self._beginning(seq, cached, limit)
            if seq.cached_tokens is None:
                seq.cached_tokens = seq.num_computed
            self._prefilling[seq] = own
            self.running.append(seq)

    def _is_worth_waiting(self, seq: LocalSequence, cached: int, limit: int) -> bool:
        """Whether a prompt that is being computed will soon have more of this one."""
        if not self._model.can_trim:
            return False
        for other in self._prefilling:
            shared = common_prefix(other.tokens, 0, seq.tokens, 0, min(len(other.tokens) - 1, limit))
            if shared - cached >= WORTH_WAITING and other.num_computed < shared:
                return True
        return False

    def _beginning(self, seq: LocalSequence, cached: int, limit: int) -> tuple[Caches, int]:
        """A cache with as much of the prompt as is known: from a running sequence, from one that has ended, or none."""
        if limit and self._model.can_trim:
            shared, other = max(
                (
                    (common_prefix(one.tokens, 0, seq.tokens, 0, min(one.num_computed, limit)), one)
                    for one in self.running
                ),
                key=lambda pair: pair[0],
                default=(0, None),
            )
            if other is not None and shared - cached >= WORTH_WAITING:
                own = self._prefilling.get(other)
                copied = caches.clone(own) if own is not None else self._batch.cache_of(other)
                found = caches.trimmed(copied, other.num_computed, shared)
                if found is not None:
                    return found, shared
        found, shared = self.prefixes.take(seq.tokens, limit)
        return (found, shared) if found is not None else (self._model.new_caches(), 0)

    def _chunks(self) -> list[tuple[LocalSequence, int]]:
        """How many tokens of which prompts the step computes; the last of each is left for decoding."""
        wanting = [(seq, seq.pending - 1) for seq in self._prefilling if seq.pending > 1]
        budget = self._pacer.prefill_budget(len(self._batch), len(wanting), self._batch_tokens)
        chunks = []
        for seq, wanted in wanting:
            count = min(wanted, budget, SCORE_CHUNK if seq.is_scoring else budget)
            if count > 0:
                chunks.append((seq, count))
                budget -= count
        return chunks

    def _prefill(self, seq: LocalSequence, count: int) -> None:
        start = seq.num_computed
        ids = seq.tokens[start : start + count]
        own = self._prefilling[seq]
        if seq.is_scoring:
            score_prompt(seq, start, np.array(self._model.logits(ids, own))[:, : self._vocab_size])
        else:
            self._model.prefill(ids, own)
        seq.num_computed += count

    def _join(self) -> None:
        """Prompts that are through begin to decode."""
        ready = [seq for seq in self._prefilling if seq.pending == 1]
        for seq in ready:
            if seq.is_scoring and len(seq.prompt) == 1:
                seq.prompt_logprobs = [Token(seq.prompt[0])]
        silent = [seq for seq in ready if seq.num_generated >= seq.max_new]
        self._finish([(seq, len(seq.tokens)) for seq in silent])
        for seq in silent:
            self.sink.ended(seq, "length")
        self._batch.join([(seq, self._prefilling.pop(seq)) for seq in ready if seq not in silent])

    def _deliver(self, step: Step) -> None:
        """Hand over what the device chose in the step before, and choose from the rows that are wanted here."""
        ended = [seq for seq, token in step.delivered_now() if self._give(seq, Token(token, token in self._eog_ids))]
        tokens: dict[int, int] = {}
        for row, seq, logits in step.logits():
            token = next_token(seq, logits, self._eog_ids)
            if token is None:
                self.sink.ended(seq, "eog")
                ended.append(seq)
                continue
            tokens[row] = token.id
            if self._give(seq, token):
                ended.append(seq)
        self._batch.choose(step, tokens)
        self._finish([(seq, len(seq.tokens)) for seq in ended])

    def _give(self, seq: LocalSequence, token: Token) -> bool:
        """Deliver a token. Returns whether it is the sequence's last."""
        finish = append(seq, token)
        self.sink.token(seq, token, finish)
        return finish is not None

    def _finish(self, ended: list[tuple[LocalSequence, int]]) -> None:
        """Let sequences go, and keep of each the cache of its first ``keep`` tokens."""
        kept = []
        for seq, keep in ended:
            keep = min(keep, seq.num_computed, len(seq.tokens))
            own = self._prefilling.pop(seq) if seq in self._prefilling else self._batch.cache_of(seq)
            if (cut := caches.trimmed(own, seq.num_computed, keep)) is not None:
                kept.append((seq.tokens[:keep], cut))
        self._batch.leave([seq for seq, _ in ended])
        for tokens, own in kept:
            self.prefixes.keep(tokens, own)
        for seq, _ in ended:
            self.running.remove(seq)
            seq.sampler.close()
