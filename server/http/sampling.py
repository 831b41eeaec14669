"""From the parameters of a request to those of the engine."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...runtime.sampling import MAX_SEED, SamplingParams
from .errors import bad_request
from .schema.generation import GenerationRequest
from .served import Served

if TYPE_CHECKING:
    from ...runtime.runtime import Runtime


def sampling_params(
    body: GenerationRequest,
    runtime: "Runtime",
    *,
    max_tokens: int | None,
    top_logprobs: int | None,
    prompt_logprobs: int | None = None,
    grammar: str | None = None,
) -> SamplingParams:
    """The engine's parameters: what the request sets, and the model's defaults for the rest."""
    return runtime.default_params(
        max_tokens=max_tokens,
        temperature=body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        min_p=body.min_p,
        typical_p=body.typical_p,
        repeat_penalty=_repeat_penalty(body),
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        penalty_last_n=body.penalty_last_n,
        seed=None if body.seed is None else body.seed % (MAX_SEED + 1),
        logit_bias=_logit_bias(body.logit_bias, runtime.engine.tokenizer.vocab_size),
        grammar=grammar,
        top_logprobs=top_logprobs,
        prompt_logprobs=prompt_logprobs,
        ignore_eog=body.ignore_eos,
    )


def number_of_choices(body: GenerationRequest, served: Served) -> int:
    """``n``, within what this server allows."""
    limit = served.settings.max_choices
    if body.n is not None and body.n > limit:
        raise bad_request(f"n is {body.n}, and this server makes at most {limit} answers to a request", "n")
    return body.n or 1


def stop_texts(body: GenerationRequest) -> list[str]:
    """``stop`` as a list."""
    if body.stop is None:
        return []
    return [body.stop] if isinstance(body.stop, str) else list(body.stop)


def wants_usage_event(body: GenerationRequest) -> bool:
    """Whether the stream ends with the token counts."""
    if body.stream_options is None:
        return False
    if not body.stream:
        raise bad_request("stream_options needs stream: true", "stream_options")
    return bool(body.stream_options.include_usage)


def check_max_tokens(max_tokens: int | None, served: Served, param: str, least: int) -> None:
    """More than the context holds is a mistake, whatever the prompt."""
    context_length = served.runtime.engine.capabilities.context_length
    if max_tokens is not None and not least <= max_tokens <= context_length:
        message = f"{param} is {max_tokens}: it must be between {least} and {context_length}, the context's length"
        raise bad_request(message, param)


def _repeat_penalty(body: GenerationRequest) -> float | None:
    if body.repeat_penalty is None:
        return body.repetition_penalty
    if body.repetition_penalty not in (None, body.repeat_penalty):
        raise bad_request("repetition_penalty and repeat_penalty are the same thing: send one", "repetition_penalty")
    return body.repeat_penalty


def _logit_bias(bias: Mapping[str, float] | None, vocab_size: int) -> dict[int, float] | None:
    if bias is None:
        return None
    for key in bias:
        if not (key.isascii() and key.isdecimal() and len(key) < 10 and int(key) < vocab_size):
            message = f"logit_bias has the key {key[:20]!r}: it must be a token id, from 0 to {vocab_size - 1}"
            raise bad_request(message, "logit_bias")
    return {int(key): value for key, value in bias.items()}
