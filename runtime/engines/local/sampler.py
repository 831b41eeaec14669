"""One request's way of choosing the next token, in C."""

import ctypes
import random
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from ...errors import RequestError
from ...gbnf import checked_grammar
from ...sampling import MAX_SEED, SamplingParams
from ..llamacpp.library import llama

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Sampler:
    """Chooses tokens from rows of logits and remembers what it chose (penalties, grammar, random state).

    It is llama.cpp's on every engine in this process, so a seed, a filter or a penalty means the same everywhere.
    ``grammar_vocab`` is llama.cpp's vocabulary, without which there are no grammars.

    Greedy requests without penalties take the row's maximum; all others go through a chain of llama.cpp's samplers
    in the order bias, penalties, top-k, typical, top-p, min-p, temperature, draw. Penalties count generated tokens.
    A grammar is asked about the chosen token first and about the whole vocabulary only when it says no.
    """

    def __init__(
        self,
        params: SamplingParams,
        *,
        vocab_size: int,
        eog_ids: Collection[int],
        context_length: int,
        grammar_vocab: Any = None,
    ) -> None:
        self._lib = lib = llama()
        self._chain = self._grammar = None
        self._forbidden = sorted(eog_ids) if params.ignore_eog else []
        has_penalties = params.repeat_penalty != 1 or params.frequency_penalty or params.presence_penalty
        if params.temperature > 0 or params.logit_bias or has_penalties or params.grammar is not None:
            self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
            window = min(params.penalty_last_n, context_length) if has_penalties else 0
            for stage in self._stages(params, vocab_size, window):
                lib.llama_sampler_chain_add(self._chain, stage)
        if params.grammar is not None:
            grammar = checked_grammar(params.grammar).encode()
            self._grammar = lib.llama_sampler_init_grammar(grammar_vocab, grammar, b"root")
            if not self._grammar:
                self.close()
                raise RequestError("grammar is not valid GBNF, or has no rule named root", param="grammar")

    @property
    def is_plain_greedy(self) -> bool:
        """Whether the choice is the row's maximum and nothing else."""
        return self._chain is None and not self._forbidden

    def sample(self, logits: np.ndarray) -> int | None:
        """The next token for a row of logits, float32 of shape (vocab,). The row is written to.

        None when the grammar allows no token at all: llama.cpp would end the process on accepting one.
        """
        if self._forbidden:
            logits[self._forbidden] = -np.inf
        if self._chain is None:
            return int(logits.argmax())
        token = self._choose(logits, use_grammar=False)
        if self._grammar and (token is None or not self._grammar_allows(token)):
            token = self._choose(logits, use_grammar=True)
        if token is None:
            return None
        if self._grammar:
            self._lib.llama_sampler_accept(self._grammar, token)
        self._lib.llama_sampler_accept(self._chain, token)
        return token

    def close(self) -> None:
        """Free the C objects."""
        for sampler in (self._chain, self._grammar):
            if sampler:
                self._lib.llama_sampler_free(sampler)
        self._chain = self._grammar = None

    def _stages(self, params: SamplingParams, n_vocab: int, window: int) -> Iterable[Any]:
        lib = self._lib
        if params.logit_bias:
            biases = (lib.llama_logit_bias * len(params.logit_bias))(*params.logit_bias.items())
            yield lib.llama_sampler_init_logit_bias(n_vocab, len(biases), biases)
        if window:
            yield lib.llama_sampler_init_penalties(
                n_vocab,
                window,
                params.repeat_penalty,
                params.frequency_penalty,
                params.presence_penalty,
            )
        if params.temperature <= 0:
            yield lib.llama_sampler_init_greedy()
            return
        if params.top_k > 0:
            yield lib.llama_sampler_init_top_k(params.top_k)
        if params.typical_p < 1:
            yield lib.llama_sampler_init_typical(params.typical_p, 1)
        if params.top_p < 1:
            yield lib.llama_sampler_init_top_p(params.top_p, 1)
        if params.min_p > 0:
            yield lib.llama_sampler_init_min_p(params.min_p, 1)
        yield lib.llama_sampler_init_temp(params.temperature)
        seed = params.seed if params.seed is not None else random.randint(0, MAX_SEED)
        yield lib.llama_sampler_init_dist(seed)

    def _choose(self, logits: np.ndarray, use_grammar: bool) -> int | None:
        candidates = np.empty(len(logits), _CANDIDATE)
        candidates["id"] = np.arange(len(logits), dtype=np.int32)
        candidates["logit"] = logits
        array = self._array(candidates)
        if use_grammar:
            self._lib.llama_sampler_apply(self._grammar, ctypes.byref(array))
        if not np.isfinite(candidates["logit"]).any():
            return None
        self._lib.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def _grammar_allows(self, token: int) -> bool:
        one = np.array([(token, 1.0, 0.0)], _CANDIDATE)
        self._lib.llama_sampler_apply(self._grammar, ctypes.byref(self._array(one)))
        return bool(np.isfinite(one["logit"][0]))

    def _array(self, candidates: np.ndarray) -> Any:
        data = candidates.ctypes.data_as(ctypes.POINTER(self._lib.llama_token_data))
        return self._lib.llama_token_data_array(data, len(candidates), -1, False)
