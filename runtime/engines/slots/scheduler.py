"""Continuous batching over slots: what the next step computes, and what becomes of its logits.

A step is one batch with a token of each running sequence, and chunks of prompts, each a call of its own, sized so that
running streams do not stall (Orca, OSDI 2022; chunked prefill as in Sarathi-Serve, OSDI 2024).
"""

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
from .model import OutOfMemory, SlotModel
from .table import SlotTable

SCORE_CHUNK = 64
"""Prompt tokens whose logits are held at once: 64 rows of a 50,000-token vocabulary are 13 MB."""
WORTH_WAITING = 16
"""A prompt waits for another that is being computed when at least this many more tokens will be shared."""
_LOOK_AHEAD = 32


class SlotScheduler:
    """Waiting and running sequences over one model; see ``local.scheduling.Scheduler``."""

    def __init__(
        self,
        model: SlotModel,
        *,
        vocab_size: int,
        eog_ids: frozenset[int],
        max_parallel: int,
        batch_tokens: int,
    ) -> None:
        self.sink: Sink
        self.waiting: deque[LocalSequence] = deque()
        self.running: list[LocalSequence] = []
        self.table = SlotTable(model)
        self._model = model
        self._vocab_size = vocab_size  # of the tokenizer: a padded model has logits for ids that nothing can name
        self._pacer = Pacer()
        self._eog_ids = eog_ids
        self._max_parallel = min(max_parallel, model.num_slots)
        self._batch_tokens = batch_tokens

    def step(self, before_compute: Callable[[], None]) -> None:
        """See ``local.scheduling.Scheduler.step``."""
        self._reap()
        self._admit()
        decoding = [seq for seq in self.running if _decodes(seq)]
        prompts = [seq for seq in self.running if not _decodes(seq)]
        chunks = self._chunks(prompts, num_decode=len(decoding))
        before_compute()
        started = time.perf_counter()
        if decoding:
            self._decode(decoding)
        for seq, count in chunks:
            self._prefill(seq, count)
        if decoding or chunks:
            self._pacer.observe(len(decoding), sum(count for _, count in chunks), time.perf_counter() - started)

    def tidy(self) -> bool:
        """Nothing is worth a moment without work."""
        return False

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
            if self._is_worth_waiting(seq, limit):
                continue
            self.waiting.remove(seq)
            self.running.append(seq)
            try:
                self.table.open(seq, limit)
            except OutOfMemory as error:
                self._fail(seq, error)
                continue
            seq.cached_tokens = seq.num_computed

    def _is_worth_waiting(self, seq: LocalSequence, limit: int) -> bool:
        """Whether a running prefill will soon have put more of this prompt into its slot."""
        coming = [(other, common_prefix(other.tokens, 0, seq.tokens, 0, limit)) for other in self._prefilling()]
        most = max((shared for other, shared in coming if other.num_computed < shared), default=0)
        return most >= WORTH_WAITING and most - self.table.match(seq.tokens, limit) >= WORTH_WAITING

    def _prefilling(self) -> list[LocalSequence]:
        return [seq for seq in self.running if seq.pending > 1]

    def _chunks(self, prompts: list[LocalSequence], num_decode: int) -> list[tuple[LocalSequence, int]]:
        """The sequences whose prompts go on in this step, the oldest first, and by how many tokens."""
        budget = self._pacer.prefill_budget(num_decode, len(prompts), self._batch_tokens)
        chunks: list[tuple[LocalSequence, int]] = []
        for seq in prompts:
            count = min(seq.pending, budget, SCORE_CHUNK if seq.is_scoring else budget)
            if not self._model.can_rewind:
                count = self._up_to_a_parting(seq, count)
            if count > 0:
                chunks.append((seq, count))
                budget -= count
        return chunks

    def _up_to_a_parting(self, seq: LocalSequence, count: int) -> int:
        """Stop a state that cannot be rewound where a waiting prompt parts from it, so that it can be copied there."""
        for other in list(self.waiting)[:_LOOK_AHEAD]:
            limit = 0 if other.is_scoring else len(other.tokens) - 1
            parting = common_prefix(seq.tokens, 0, other.tokens, 0, limit) - seq.num_computed
            if 0 < parting < count and parting + seq.num_computed >= WORTH_WAITING:
                count = parting
        return count

    def _decode(self, seqs: list[LocalSequence]) -> None:
        try:
            rows = self._model.decode(
                [seq.seq_id or 0 for seq in seqs],
                [seq.tokens[-1] for seq in seqs],
                [seq.num_computed for seq in seqs],
            )
        except OutOfMemory as error:
            self._fail(seqs[-1], error)  # the youngest goes; the others try again in the next step
            return
        for seq, row in zip(seqs, rows[:, : self._vocab_size], strict=True):
            seq.num_computed += 1
            self._sample(seq, row)

    def _prefill(self, seq: LocalSequence, count: int) -> None:
        start = seq.num_computed
        ids = seq.tokens[start : start + count]
        try:
            rows = self._model.prefill(seq.seq_id or 0, ids, start, all_rows=seq.is_scoring)[:, : self._vocab_size]
        except OutOfMemory as error:
            self._fail(seq, error)
            return
        seq.num_computed += count
        if seq.is_scoring:
            score_prompt(seq, start, rows)
        if not seq.pending:
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
        self.running.remove(seq)
        if seq.seq_id is not None:
            self.table.close(seq, keep)
        seq.sampler.close()

    def _fail(self, seq: LocalSequence, error: OutOfMemory) -> None:
        self._finish(seq, keep=0)
        self.sink.failed(seq, str(error))


def _decodes(seq: LocalSequence) -> bool:
    """Whether one token is missing behind others, and only its successor is wanted."""
    return seq.pending == 1 and seq.num_computed > 0 and not seq.is_scoring
