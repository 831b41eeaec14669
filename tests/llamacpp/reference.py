"""The slow, obvious way: one sequence, one token at a time, on llama.cpp's bare API."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np


class Reference:
    """A model with a context of its own."""

    def __init__(self, path: Path, context: int = 1024, threads: int = 2) -> None:
        self._model: Any = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_threads, params.n_threads_batch = context, threads, threads
        self._context: Any = llama_cpp.llama_init_from_model(self._model, params)
        self.vocab: Any = llama_cpp.llama_model_get_vocab(self._model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(self.vocab)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits after each token, float32 of shape (len(ids), vocab)."""
        memory: Any = llama_cpp.llama_get_memory(self._context)
        llama_cpp.llama_memory_clear(memory, True)
        return np.stack([self._next(token) for token in ids])

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """The next ``count`` tokens, ending early at an end of generation, which is included."""
        token, out = int(self.logits(ids)[-1].argmax()), []
        for _ in range(count):
            out.append(token)
            if llama_cpp.llama_vocab_is_eog(self.vocab, token):
                break
            token = int(self._next(token).argmax())
        return out

    def close(self) -> None:
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def _next(self, token: int) -> np.ndarray:
        ids = (ctypes.c_int32 * 1)(token)
        assert llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(ids, 1)) == 0
        row = llama_cpp.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(row, (self.vocab_size,)).copy()


def log_softmax64(logits: np.ndarray) -> np.ndarray:
    """In double precision."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
