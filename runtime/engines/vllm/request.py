"""One sequence as ``/v1/completions`` takes it: every field is sent, so that no default of the server's leaks in."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from ...errors import RequestError
from ...sampling import SamplingParams

LEAST_TEMPERATURE = 0.01
MOST_TEMPERATURE = 2.0
OUR_NAMES = {
    "repetition_penalty": "repeat_penalty",
    "structured_outputs": "grammar",
    "min_tokens": "ignore_eos",
    "logprobs": "top_logprobs",
}
"""vLLM's names of parameters, where they are not ours."""


def check_params(params: SamplingParams) -> None:
    """RequestError for what vLLM lacks, or would do otherwise than it is asked."""
    if params.typical_p < 1:
        raise _refused("typical_p", params.typical_p, "leave it out, or use top_p or min_p")
    if 0 < params.temperature < LEAST_TEMPERATURE:
        raise _refused("temperature", params.temperature, f"use 0, which is greedy, or at least {LEAST_TEMPERATURE}")
    if params.temperature > MOST_TEMPERATURE:
        raise _refused("temperature", params.temperature, f"use at most {MOST_TEMPERATURE:g}")
    if _has_penalties(params) and params.penalty_last_n not in (0, SamplingParams().penalty_last_n):
        raise _refused("penalty_last_n", params.penalty_last_n, "leave it out: penalties are for the whole sequence")


def _refused(name: str, value: float, advice: str) -> RequestError:
    return RequestError(f"the vllm engine cannot do {name} {value:g}: {advice}", param=name)


def _has_penalties(params: SamplingParams) -> bool:
    return (params.repeat_penalty, params.frequency_penalty, params.presence_penalty) != (1, 0, 0)


def request_fields(
    model_id: str, prompt: Sequence[int], params: SamplingParams, max_new: int, eog_ids: Collection[int]
) -> dict[str, Any]:
    """The body of the request. ``max_new`` 0 scores the prompt; vLLM makes a token then, which nobody reads."""
    fields: dict[str, Any] = {
        "model": model_id,
        "prompt": list(prompt),
        "n": 1,
        "max_tokens": max_new,
        "seed": params.seed,
        "stop": [],
        "stop_token_ids": sorted(eog_ids),
        "ignore_eos": False,
        # Until so many tokens are made, vLLM gives the ends of generation no probability at all.
        "min_tokens": max_new if params.ignore_eog else 0,
        "logit_bias": {str(token): bias for token, bias in params.logit_bias.items()} or None,
        "stream": True,
        "stream_options": {"include_usage": True},
        "add_special_tokens": False,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        # With echo the prompt's log-probabilities come first, which is the one way to have them in a stream.
        "echo": params.prompt_logprobs is not None or max_new == 0,
        "logprobs": _num_logprobs(params),
        # xgrammar, which reads grammars for vLLM, took GBNF over; the little that it lacks it refuses.
        "structured_outputs": {"grammar": params.grammar} if params.grammar is not None else None,
    }
    return {**fields, **_choice_of_token(params)}


def _num_logprobs(params: SamplingParams) -> int | None:
    asked = [count for count in (params.top_logprobs, params.prompt_logprobs) if count is not None]
    return max(asked, default=None)


def _choice_of_token(params: SamplingParams) -> dict[str, Any]:
    """How the next token is chosen. vLLM takes no ``top_p`` of 0, which keeps the most likely token only."""
    is_penalised = params.penalty_last_n != 0
    return {
        "temperature": params.temperature,
        "top_k": params.top_k if params.top_p > 0 else 1,
        "top_p": params.top_p if params.top_p > 0 else 1.0,
        "min_p": params.min_p,
        "repetition_penalty": params.repeat_penalty if is_penalised else 1.0,
        "frequency_penalty": params.frequency_penalty if is_penalised else 0.0,
        "presence_penalty": params.presence_penalty if is_penalised else 0.0,
        "length_penalty": 1.0,
    }


def request_body(fields: dict[str, Any]) -> bytes:
    """The fields as they are sent."""
    return json.dumps(fields, separators=(",", ":")).encode()
