"""The raw replay: what the model itself takes for a load, pushed through bare ``llama_decode`` calls.

No server, no text, no scheduling: the prompts in full batches, a common prefix computed once and copied, then
one batch a step over all sequences, each next token chosen greedily in C. What a server takes longer is its
own doing. The settings are llama.cpp's best: flash attention, one unified cache, the faster of two
micro-batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from ...runtime.errors import EngineError, ModelError

BATCH_TOKENS = 512
CACHE_CELLS = 8192
MAX_SEQUENCES = 8
MICRO_BATCHES = (512, 256)
_CALIBRATION_PASSES = 2


@dataclass(frozen=True, slots=True)
class Timing:
    """``wall_s`` from the first prompt token to the last new one, ``prefill_s`` of it for the prompts."""

    wall_s: float
    prefill_s: float
    tokens: list[list[int]]


@dataclass(frozen=True, slots=True)
class _Item:
    """A token to decode; with ``has_logits`` the one after it is chosen."""

    token: int
    position: int
    sequence: int
    has_logits: bool


class RawReplay:
    """A loaded model with one context, for one thread at a time. Raises ModelError when it does not load."""

    def __init__(self, path: Path, threads: int, micro_batches: Sequence[int] = MICRO_BATCHES) -> None:
        import llama_cpp

        self._api: Any = llama_cpp
        self._api.llama_backend_init()
        self._model = self._api.llama_model_load_from_file(str(path).encode(), self._api.llama_model_default_params())
        if not self._model:
            raise ModelError(f"llama.cpp cannot load {path}: `tapster inspect` may say why")
        self._batch = self._api.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._sampler = self._api.llama_sampler_init_greedy()
        self._threads = threads
        self.micro_batch = 0
        self._context = None
        self._open_fastest(micro_batches)

    def tokenize(self, text: str) -> list[int]:
        """The ids a server makes of a plain prompt: special tokens as the model declares."""
        data = text.encode()
        vocab = self._api.llama_model_get_vocab(self._model)
        room = len(data) + 8
        ids = (self._api.llama_token * room)()
        count = self._api.llama_tokenize(vocab, data, len(data), ids, room, True, True)
        return list(ids[:count])

    def run(self, prompts: Sequence[Sequence[int]], new_tokens: int, has_prefix: bool = False) -> Timing:
        """Replay prompts that start together; ``has_prefix`` computes what all begin with only once.

        At most ``MAX_SEQUENCES`` prompts, and all their tokens have to fit into ``CACHE_CELLS``.
        """
        start_s = perf_counter()
        self._api.llama_memory_clear(self._memory, False)
        tokens = [[token] for token in self._prefill(prompts, common_prefix(prompts) if has_prefix else 0)]
        prefill_s = perf_counter() - start_s
        for step in range(new_tokens - 1):
            items = [
                _Item(made[-1], len(prompt) + step, sequence, True)
                for sequence, (prompt, made) in enumerate(zip(prompts, tokens, strict=True))
            ]
            for made, token in zip(tokens, self._decode(items), strict=True):
                made.append(token)
        return Timing(perf_counter() - start_s, prefill_s, tokens)

    def close(self) -> None:
        """Free everything. The object is of no use afterwards."""
        self._free_context()
        self._api.llama_sampler_free(self._sampler)
        self._api.llama_batch_free(self._batch)
        self._api.llama_model_free(self._model)

    def _prefill(self, prompts: Sequence[Sequence[int]], prefix: int) -> list[int]:
        """Each prompt's first new token."""
        if prefix:
            self._decode([_Item(prompts[0][position], position, 0, False) for position in range(prefix)])
            for sequence in range(1, len(prompts)):
                self._api.llama_memory_seq_cp(self._memory, 0, sequence, 0, prefix)
        return self._decode(
            [
                _Item(prompt[position], position, sequence, position == len(prompt) - 1)
                for sequence, prompt in enumerate(prompts)
                for position in range(prefix, len(prompt))
            ]
        )

    def _decode(self, items: Sequence[_Item]) -> list[int]:
        """Decode in full batches; the next token after every item that has logits, in order."""
        chosen: list[int] = []
        for start in range(0, len(items), BATCH_TOKENS):
            part = items[start : start + BATCH_TOKENS]
            self._fill(part)
            if status := self._api.llama_decode(self._context, self._batch):
                raise EngineError(f"the raw replay's llama_decode returned {status} for a batch of {len(part)} tokens")
            chosen += [
                self._api.llama_sampler_sample(self._sampler, self._context, index)
                for index, item in enumerate(part)
                if item.has_logits
            ]
        return chosen

    def _fill(self, items: Sequence[_Item]) -> None:
        batch = self._batch
        for index, item in enumerate(items):
            batch.token[index] = item.token
            batch.pos[index] = item.position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = item.sequence
            batch.logits[index] = item.has_logits
        batch.n_tokens = len(items)

    def _open_fastest(self, micro_batches: Sequence[int]) -> None:
        """Keep the micro-batch that takes a full batch of prompt in the least time."""
        if len(micro_batches) == 1:
            self._open_context(micro_batches[0])
            return
        vocab_size = self._api.llama_vocab_n_tokens(self._api.llama_model_get_vocab(self._model))
        prompt = [1 + 7919 * index % (vocab_size - 1) for index in range(BATCH_TOKENS)]
        times_s: dict[int, float] = {}
        for micro_batch in micro_batches:
            self._open_context(micro_batch)
            times_s[micro_batch] = min(self.run([prompt], 1).wall_s for _ in range(_CALIBRATION_PASSES))
        fastest = min(times_s, key=times_s.__getitem__)
        if fastest != self.micro_batch:
            self._open_context(fastest)

    def _open_context(self, micro_batch: int) -> None:
        self._free_context()
        params = self._api.llama_context_default_params()
        params.n_ctx = CACHE_CELLS
        params.n_batch = BATCH_TOKENS
        params.n_ubatch = micro_batch
        params.n_seq_max = params.n_outputs_max = MAX_SEQUENCES
        params.n_threads = params.n_threads_batch = self._threads
        params.flash_attn_type = self._api.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.kv_unified = params.no_perf = True
        self._context = self._api.llama_init_from_model(self._model, params)
        if not self._context:
            raise ModelError(f"llama.cpp cannot make a context of {CACHE_CELLS} cells: is there enough memory?")
        self._memory = self._api.llama_get_memory(self._context)
        self.micro_batch = micro_batch

    def _free_context(self) -> None:
        if self._context:
            self._api.llama_free(self._context)
            self._context = None


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with; at least one token of each prompt stays out."""
    length = 0
    for column in zip(*(prompt[:-1] for prompt in prompts), strict=False):
        if len(set(column)) > 1:
            break
        length += 1
    return length
