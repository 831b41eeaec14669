"""The logits of a GGUF model; see ``engines.logits``."""

import time
from typing import TYPE_CHECKING

import numpy as np

from ...errors import EngineError
from ..local.threads import FixedThreads, ThreadTuner, default_threads
from .context import Batch, LlamaContext
from .library import last_error, llama, load_model

if TYPE_CHECKING:
    from ...profile import ModelProfile


class LlamaLogits:
    """A loaded GGUF model with a context of its own."""

    def __init__(
        self, profile: "ModelProfile", *, context_tokens: int, step_tokens: int, threads: int | None = None
    ) -> None:
        self._path = profile.path
        self._lib = llama()
        self._handle = load_model(profile.path, None)
        self.vocabulary: int = self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._handle))
        self._batch = Batch(step_tokens)
        self._threads = FixedThreads(threads) if threads else ThreadTuner(default_threads())
        self._context: LlamaContext | None = None
        try:
            self._context = LlamaContext(
                self._handle,
                cells=context_tokens,
                max_seqs=1,
                batch_tokens=step_tokens,
                num_threads=self._threads.choose(),
            )
        finally:
            if self._context is None:
                self.close()

    def close(self) -> None:
        """Free the model."""
        if self._context:
            self._context.close()
        self._lib.llama_model_free(self._handle)

    def forget(self) -> None:
        """Empty the cache."""
        assert self._context is not None
        self._context.free(0)

    def logits(self, ids: list[int], start: int) -> np.ndarray:
        """See ``LogitsModel``. EngineError when llama.cpp cannot compute them."""
        assert self._context is not None
        self._batch.clear()
        self._batch.add_run(ids, start, 0, all_outputs=True, last_output=True)
        self._context.set_threads(self._threads.choose())
        started_s = time.perf_counter()
        code = self._context.decode(self._batch)
        self._threads.observe(0, len(ids), time.perf_counter() - started_s)
        if code:
            raise EngineError(f"llama.cpp cannot run {self._path} (code {code}): {last_error()}")
        return self._context.logits(len(ids))


open_logits = LlamaLogits
