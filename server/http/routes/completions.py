"""POST /v1/completions."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from ....runtime.text.types import Answer, TokenText
from ..body import JsonRoute
from ..completion_events import CompletionEvents
from ..echo import hidden_chars, prompt_text
from ..errors import bad_request
from ..event_stream import EventStream, usage_event
from ..inputs import checked_inputs, token_ids
from ..logprobs import CompletionLogprobs
from ..offload import prepared
from ..sampling import check_max_tokens, number_of_choices, sampling_params, stop_texts, wants_usage_event
from ..schema.completion import CreateCompletionResponse
from ..schema.completion_request import MAX_INPUTS, CreateCompletionRequest
from ..served import Served, served_model
from ..usage import usage_body
from ..whole_answer import WholeAnswer

if TYPE_CHECKING:
    from ....runtime.runtime import Runtime, TextStream
    from ....runtime.sampling import SamplingParams

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default."""

router = APIRouter(route_class=JsonRoute)


@router.post("/v1/completions", response_model=CreateCompletionResponse, tags=["OpenAI"])
async def create_completion(body: CreateCompletionRequest, request: Request) -> Response:
    """Continue texts. With ``stream`` the response is server-sent events of the same objects."""
    served = served_model(request, body.model)
    tokenizer = served.runtime.engine.tokenizer
    with_usage, with_logprobs = wants_usage_event(body), body.logprobs is not None
    n = _number_of_choices(body, served)
    prompts = checked_inputs(body.prompt, tokenizer.vocab_size, "prompt")
    if len(prompts) * n > MAX_INPUTS:
        raise bad_request(f"{len(prompts)} prompts times n {n} is more than {MAX_INPUTS} answers", "prompt")
    params = _params(body, served)
    ids = await prepared(request, lambda: token_ids(prompts, tokenizer))
    groups = _start(served.runtime, ids, params, body, n)
    streams = [stream for group in groups for stream in group]
    echoes = [prompt_text(prompt, tokenizer) if body.echo else None for prompt in prompts for _ in range(n)]
    head = served.head("text_completion", "cmpl", int(time.time()))

    def usage() -> dict[str, Any]:
        return usage_body([[stream.usage for stream in group] for group in groups])

    def whole(answers: Sequence[Answer]) -> dict[str, Any]:
        parts = zip(streams, answers, echoes, strict=True)
        choices = [_choice(idx, *part, logprobs=with_logprobs) for idx, part in enumerate(parts)]
        return {**head, "choices": choices, "usage": usage()}

    if not body.stream:
        return WholeAnswer(streams, whole)
    events = [
        CompletionEvents(head, idx, usage=with_usage, logprobs=with_logprobs, echo=echo)
        for idx, echo in enumerate(echoes)
    ]
    return EventStream(streams, events, lambda: usage_event(head, usage()) if with_usage else b"")


def _number_of_choices(body: CreateCompletionRequest, served: Served) -> int:
    n = number_of_choices(body, served)
    if body.best_of not in (None, n):
        raise bad_request(f"best_of is not supported: leave it out, or send n, which is {n}", "best_of")
    return n


def _params(body: CreateCompletionRequest, served: Served) -> "SamplingParams":
    max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    check_max_tokens(max_tokens, served, "max_tokens", least=0 if body.echo else 1)
    return sampling_params(
        body,
        served.runtime,
        max_tokens=max_tokens,
        top_logprobs=body.logprobs,
        prompt_logprobs=body.logprobs if body.echo else None,
        grammar=body.grammar,
    )


def _start(
    runtime: "Runtime",
    prompts: Sequence[Sequence[int]],
    params: "SamplingParams",
    body: CreateCompletionRequest,
    n: int,
) -> "list[list[TextStream]]":
    """The streams of every prompt. When one is refused none runs."""
    stop, include_stop = stop_texts(body), bool(body.include_stop_str_in_output)
    groups: list[list[TextStream]] = []
    try:
        for prompt in prompts:
            started = runtime.complete(prompt, params, stop=stop, n=n, include_stop=include_stop)
            groups.append(started)
    except Exception:
        for stream in (stream for group in groups for stream in group):
            stream.cancel()
        raise
    return groups


def _choice(idx: int, stream: "TextStream", answer: Answer, echo: str | None, *, logprobs: bool) -> dict[str, Any]:
    before: Sequence[TokenText] = () if echo is None else stream.prompt_tokens or ()
    hidden = hidden_chars(echo or "", before)
    return {
        "index": idx,
        "text": (echo or "") + answer.content,
        "logprobs": CompletionLogprobs(hidden).add([*before, *answer.tokens]) if logprobs else None,
        "finish_reason": answer.finish_reason or "stop",
        "stop_reason": answer.stop_reason,
    }
