"""The responses of POST /v1/chat/completions.

After CreateChatCompletionResponse and CreateChatCompletionStreamResponse of OpenAI's OpenAPI document
(github.com/openai/openai-openapi). Two additions: ``reasoning_content`` (what a reasoning model wrote before
its answer) and ``stop_reason`` (the stop text that matched). Fields that cannot occur here are left out.
"""

from typing import Literal

from .base import ResponseModel
from .usage import CompletionUsage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class TopLogprob(ResponseModel):
    """One of the most likely tokens. A probability of zero is reported as -9999."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatCompletionTokenLogprob(TopLogprob):
    """A token of the answer with its log-probability, in nats."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(ResponseModel):
    """Log-probabilities of an answer; of reasoning and its markers, where there is any, apart."""

    content: list[ChatCompletionTokenLogprob] | None
    refusal: list[ChatCompletionTokenLogprob] | None
    reasoning_content: list[ChatCompletionTokenLogprob] | None = None


class CalledFunction(ResponseModel):
    """The function called; ``arguments`` is JSON text."""

    name: str
    arguments: str


class MessageToolCall(ResponseModel):
    """A call that the model made."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatCompletionResponseMessage(ResponseModel):
    """The answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    annotations: list[dict]
    tool_calls: list[MessageToolCall] | None = None
    reasoning_content: str | None = None


class ChatChoice(ResponseModel):
    """One of the answers."""

    index: int
    message: ChatCompletionResponseMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    stop_reason: str | None


class CreateChatCompletionResponse(ResponseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: CompletionUsage


class MessageToolCallChunk(ResponseModel):
    """A call that the model made. Each comes whole, in one chunk."""

    index: int
    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatCompletionStreamResponseDelta(ResponseModel):
    """What a chunk adds to the answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[MessageToolCallChunk] | None = None


class ChatChunkChoice(ResponseModel):
    """What a chunk adds to one of the answers. ``stop_reason`` comes with the finish reason."""

    index: int
    delta: ChatCompletionStreamResponseDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None
    stop_reason: str | None = None


class CreateChatCompletionStreamResponse(ResponseModel):
    """One event of a streamed answer. With ``include_usage`` all have ``usage``: null, except the last."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: CompletionUsage | None = None
