"""The response of POST /v1/completions, streamed or not.

After CreateCompletionResponse of OpenAI's OpenAPI document (github.com/openai/openai-openapi). Their service
departs from it twice, and so does this: ``finish_reason`` is null in all chunks but the last, and the first
token of an echoed prompt has no log-probability. ``stop_reason`` is an addition.
"""

from typing import Literal

from .base import ResponseModel
from .usage import CompletionUsage


class CompletionLogprobs(ResponseModel):
    """Parallel lists, by token. A token that is no UTF-8 by itself is written ``bytes:\\xf0\\x9f``."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(ResponseModel):
    """One of the continuations."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length", "content_filter"] | None
    stop_reason: str | None = None


class CreateCompletionResponse(ResponseModel):
    """Continuations, in the order of the prompts, ``n`` of each."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | None = None
