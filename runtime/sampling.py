"""How the next token is chosen: the parameters of one request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

from .errors import RequestError

MAX_SEED = 2**32 - 2
"""Engines take 32 bits, and llama.cpp draws a seed of its own for the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """What one sequence asks of an engine. Every field is checked when the object is made.

    ``temperature`` 0 is greedy. ``top_k`` 0, ``top_p`` 1, ``min_p`` 0 and ``typical_p`` 1 switch a filter off.
    ``max_tokens`` None means as many as the context holds; 0 asks for no new token (to score a prompt).
    ``seed`` None draws one. ``logit_bias`` maps token ids to what is added to their logits. ``grammar`` is GBNF.
    ``top_logprobs`` None reports no log-probabilities, 0 the chosen token's only; ``prompt_logprobs`` is the same
    for the tokens of the prompt. ``ignore_eog`` forbids end-of-generation tokens (for benchmarks).
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    grammar: str | None = None
    top_logprobs: int | None = None
    prompt_logprobs: int | None = None
    ignore_eog: bool = False

    def __post_init__(self) -> None:
        _check_range("max_tokens", self.max_tokens, 0, None)
        _check_range("temperature", self.temperature, 0, 100)
        _check_range("top_k", self.top_k, 0, None)
        _check_range("top_p", self.top_p, 0, 1)
        _check_range("min_p", self.min_p, 0, 1)
        _check_range("typical_p", self.typical_p, 0, 1)
        _check_range("repeat_penalty", self.repeat_penalty, 0.01, 10)
        _check_range("frequency_penalty", self.frequency_penalty, -2, 2)
        _check_range("presence_penalty", self.presence_penalty, -2, 2)
        _check_range("penalty_last_n", self.penalty_last_n, 0, None)
        _check_range("seed", self.seed, 0, MAX_SEED)
        _check_range("top_logprobs", self.top_logprobs, 0, 20)
        _check_range("prompt_logprobs", self.prompt_logprobs, 0, 20)
        for bias in self.logit_bias.values():
            _check_range("logit_bias", bias, -100, 100)


def _check_range(name: str, value: float | None, low: float, high: float | None) -> None:
    if value is None:
        return
    if not isfinite(value) or value < low or (high is not None and value > high):
        allowed = f"between {low} and {high}" if high is not None else f"at least {low}"
        raise RequestError(f"{name} must be {allowed}, not {value}", param=name)
