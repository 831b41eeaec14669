"""Embeddings from a generative model: its hidden states, pooled over the text."""

from collections import deque
from collections.abc import Callable

import numpy as np

from ..local.sequence import EmbeddingJob
from .cache import CellCache
from .context import Batch, LlamaContext

CHUNK = 64
"""Tokens a step: every one of them has its logits computed as well, which costs memory."""
_CLS, _LAST = 2, 3


class Embedder:
    """Texts waiting for their vectors. One chunk of one text a step, so that streams go on in between.

    ``pooling`` is GGUF's ``{arch}.pooling_type``: 1 the mean over all tokens (the default), 2 the first, 3 the last.
    ``budget`` says how many tokens of those wanted may be computed now.
    """

    def __init__(
        self, context: LlamaContext, cache: CellCache, pooling: int | None, budget: Callable[[int], int]
    ) -> None:
        self.jobs: deque[EmbeddingJob] = deque()
        self._context = context
        self._cache = cache
        self._pooling = pooling
        self._budget = budget
        self._batch = Batch(CHUNK)

    def step(self) -> None:
        """Compute some more tokens of the oldest text; a full cache leaves it for later."""
        if not self.jobs:
            return
        job = self.jobs[0]
        if job.is_cancelled:
            self._close(job)
            return
        if job.seq_id is None:
            job.seq_id, _ = self._cache.open()
        count = min(self._budget(CHUNK), len(job.ids) - job.num_computed, self._cache.reserve(CHUNK))
        if count > 0:
            self._decode(job, job.seq_id, count)
            if job.num_computed == len(job.ids):
                self._close(job)
                job.resolve(_unit(job.pooled))

    def _decode(self, job: EmbeddingJob, seq_id: int, count: int) -> None:
        start = job.num_computed
        self._batch.clear()
        run = list(job.ids[start : start + count])
        self._batch.add_run(run, start, seq_id, all_outputs=True, last_output=True)
        self._context.set_embeddings(True)
        try:
            status = self._context.decode(self._batch)
            if status != 0:
                raise RuntimeError(f"llama_decode failed with status {status} while embedding")
            self._pool(job, self._context.embeddings(count))
        finally:
            self._context.set_embeddings(False)
        self._cache.private += count
        job.num_computed += count

    def _pool(self, job: EmbeddingJob, states: np.ndarray) -> None:
        if self._pooling == _LAST:
            job.pooled = states[-1].astype(np.float64)
        elif self._pooling == _CLS:
            job.pooled = states[0].astype(np.float64) if job.pooled is None else job.pooled
        else:
            total = states.sum(axis=0, dtype=np.float64)
            job.pooled = total if job.pooled is None else job.pooled + total

    def _close(self, job: EmbeddingJob) -> None:
        self.jobs.remove(job)
        if job.seq_id is not None:
            self._cache.discard(job.seq_id, job.num_computed)


def _unit(vector: np.ndarray) -> list[float]:
    norm = float(np.linalg.norm(vector))
    return (vector / norm if norm else vector).astype(np.float32).tolist()
