"""A llama.cpp context that an observer watches while it computes, one chunk of text after another."""

import ctypes
from time import perf_counter
from typing import Any

import numpy as np

from ...runtime.engines.llamacpp.context import Batch
from ...runtime.engines.llamacpp.library import last_error, llama
from ...runtime.engines.local.threads import FixedThreads, ThreadTuner
from ...runtime.errors import ConversionError
from .observer import Observer, Sums


class WatchedContext:
    """Computes chunks of ``chunk_tokens`` tokens, each from an empty cache."""

    def __init__(self, model: Any, observer: Observer, chunk_tokens: int, tuner: FixedThreads | ThreadTuner) -> None:
        self._lib = lib = llama()
        self._observer = observer
        # the C side keeps the address only
        self._callback = lib.ggml_backend_sched_eval_callback(observer.callback)
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = params.n_outputs_max = chunk_tokens
        params.n_seq_max = 1
        params.no_perf = True
        params.cb_eval, params.cb_eval_user_data = self._callback, ctypes.c_void_p(0)
        self._handle = lib.llama_init_from_model(model, params)
        if not self._handle:
            raise ConversionError(f"llama.cpp cannot make a context of {chunk_tokens} tokens: {last_error()}")
        self._batch = Batch(chunk_tokens)
        self._tuner = tuner
        tuner.resume()

    def step(self, chunk: np.ndarray) -> Sums:
        """What meets each weight over one chunk. ConversionError when llama.cpp fails."""
        lib = self._lib
        lib.llama_memory_clear(lib.llama_get_memory(self._handle), True)
        self._batch.clear()
        # an output for every token: the last layer leaves out the tokens whose output nobody wants
        self._batch.add_run(chunk.tolist(), 0, 0, all_outputs=True, last_output=True)
        num_threads = self._tuner.choose()
        lib.llama_set_n_threads(self._handle, num_threads, num_threads)
        started_s = perf_counter()
        status = lib.llama_decode(self._handle, self._batch.struct())
        self._tuner.observe(0, len(chunk), perf_counter() - started_s)
        sums = self._observer.take()
        if status:
            raise ConversionError(f"llama.cpp failed on a chunk of {len(chunk)} tokens: {last_error()}")
        return sums

    def close(self) -> None:
        """Free the context."""
        self._lib.llama_free(self._handle)
