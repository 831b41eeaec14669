"""A llama.cpp context as the scheduler sees it: a batch to fill, a step to run, cells to share and free."""

import ctypes
from typing import Any

import numpy as np

from ...errors import ModelError
from .library import last_error, llama

NO_CELLS = 1
"""What ``LlamaContext.decode`` returns when the cache has no room for the batch."""


class Batch:
    """The tokens of one step, filled from Python lists in bulk and handed to llama.cpp without copying."""

    def __init__(self, capacity: int) -> None:
        lib = llama()
        self.capacity = capacity
        self.size = 0
        self._token = np.zeros(capacity, np.int32)
        self._pos = np.zeros(capacity, np.int32)
        self._seq = np.zeros(capacity, np.int32)
        self._num_seq = np.ones(capacity, np.int32)
        self._output = np.zeros(capacity, np.int8)
        stride = self._seq.itemsize
        self._seq_pointers = self._seq.ctypes.data + stride * np.arange(capacity, dtype=np.uintp)
        pointers = lib.llama_batch._fields_
        kinds = dict(pointers)
        self._struct = lib.llama_batch(
            0,
            ctypes.cast(self._token.ctypes.data, kinds["token"]),
            None,
            ctypes.cast(self._pos.ctypes.data, kinds["pos"]),
            ctypes.cast(self._num_seq.ctypes.data, kinds["n_seq_id"]),
            ctypes.cast(self._seq_pointers.ctypes.data, kinds["seq_id"]),
            ctypes.cast(self._output.ctypes.data, kinds["logits"]),
        )

    @property
    def room(self) -> int:
        """How many more tokens fit."""
        return self.capacity - self.size

    def clear(self) -> None:
        """Forget the last step's tokens."""
        self.size = 0

    def add(self, token: int, pos: int, seq_id: int) -> None:
        """One token whose logits are wanted."""
        at = self.size
        self._token[at], self._pos[at], self._seq[at], self._output[at] = token, pos, seq_id, 1
        self.size = at + 1

    def add_run(self, tokens: list[int], pos: int, seq_id: int, *, all_outputs: bool, last_output: bool) -> None:
        """Consecutive tokens of one sequence; logits of all of them, of the last one, or of none."""
        start, end = self.size, self.size + len(tokens)
        self._token[start:end] = tokens
        self._pos[start:end] = np.arange(pos, pos + len(tokens))
        self._seq[start:end] = seq_id
        self._output[start:end] = all_outputs
        if last_output:
            self._output[end - 1] = 1
        self.size = end

    def struct(self) -> Any:
        """The C view, valid until the next change."""
        self._struct.n_tokens = self.size
        return self._struct


class LlamaContext:
    """One context with a unified cache. Only the thread that runs the engine may use it."""

    def __init__(self, model: Any, *, cells: int, max_seqs: int, batch_tokens: int, num_threads: int) -> None:
        self._lib = lib = llama()
        params = lib.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = batch_tokens
        params.n_ubatch = min(batch_tokens, 256)
        params.n_seq_max = max_seqs
        params.n_outputs_max = params.n_ubatch
        params.kv_unified = True
        params.swa_full = True
        params.no_perf = True
        params.n_threads = params.n_threads_batch = num_threads
        self._handle = lib.llama_init_from_model(model, params)
        if not self._handle:
            raise ModelError(f"llama.cpp cannot make a context of {cells} tokens: {last_error()}")
        self._memory = lib.llama_get_memory(self._handle)
        self._vocab_size: int = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        self._embedding_size: int = lib.llama_model_n_embd_out(model)
        self.cells: int = lib.llama_n_ctx(self._handle)

    def decode(self, batch: Batch) -> int:
        """Run one step. 0 is success, NO_CELLS a full cache (nothing was changed), anything else a failure."""
        return self._lib.llama_decode(self._handle, batch.struct())

    def logits(self, num_outputs: int) -> np.ndarray:
        """Logits of the last step, float32 of shape (num_outputs, vocab), in batch order; valid until the next."""
        address = ctypes.cast(self._lib.llama_get_logits(self._handle), ctypes.c_void_p).value
        return _float_rows(address, num_outputs, self._vocab_size)

    def embeddings(self, num_outputs: int) -> np.ndarray:
        """Hidden states of the last step, float32 of shape (num_outputs, width); valid until the next."""
        address = ctypes.cast(self._lib.llama_get_embeddings(self._handle), ctypes.c_void_p).value
        return _float_rows(address, num_outputs, self._embedding_size)

    def set_embeddings(self, enabled: bool) -> None:
        """Switch the hidden states of every token on or off for the next steps."""
        self._lib.llama_set_embeddings(self._handle, enabled)

    def set_threads(self, num_threads: int) -> None:
        """Threads for the next steps."""
        self._lib.llama_set_n_threads(self._handle, num_threads, num_threads)

    def share(self, owner: int, seq_id: int, start: int, end: int) -> None:
        """Let ``seq_id`` own the cells of ``owner`` at positions [start, end) as well. Nothing is copied."""
        self._lib.llama_memory_seq_cp(self._memory, owner, seq_id, start, end)

    def free(self, seq_id: int, start: int = 0, end: int = -1) -> None:
        """Give up a sequence's cells at positions [start, end); -1 is the end. Shared cells stay with the others."""
        self._lib.llama_memory_seq_rm(self._memory, seq_id, start, end)

    def save(self, seq_id: int) -> np.ndarray:
        """A copy of a sequence's cells, bytes of llama.cpp's own format."""
        size = self._lib.llama_state_seq_get_size(self._handle, seq_id)
        state = np.empty(size, np.uint8)
        written = self._lib.llama_state_seq_get_data(self._handle, _bytes_at(state), size, seq_id)
        return state[:written]

    def restore(self, seq_id: int, state: np.ndarray) -> bool:
        """Put a saved sequence into free cells. False when they do not suffice; nothing is changed then."""
        return bool(self._lib.llama_state_seq_set_data(self._handle, _bytes_at(state), len(state), seq_id))

    def close(self) -> None:
        """Free the context."""
        if self._handle:
            self._lib.llama_free(self._handle)
        self._handle = None


def _float_rows(address: int | None, rows: int, width: int) -> np.ndarray:
    if not address:
        raise RuntimeError("llama.cpp returned no output for a step that asked for some")
    floats = (ctypes.c_float * (rows * width)).from_address(address)
    return np.frombuffer(memoryview(floats), np.float32).reshape(rows, width)


def _bytes_at(array: np.ndarray) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
