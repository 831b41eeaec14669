"""POST /v1/chat/completions and POST /apply-template."""

import time
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from ....runtime.errors import RequestError
from ..body import JsonRoute
from ..chat_body import NewSplitter, chat_body
from ..chat_events import ChatEvents
from ..chat_prompt import chat_prompt
from ..errors import bad_request
from ..event_stream import EventStream, usage_event
from ..offload import prepared
from ..response_format import SCHEMA_PARAM, grammar_of
from ..sampling import check_max_tokens, number_of_choices, sampling_params, stop_texts, wants_usage_event
from ..schema.chat import CreateChatCompletionResponse
from ..schema.chat_request import ApplyTemplateRequest, CreateChatCompletionRequest
from ..schema.text import ApplyTemplateResponse
from ..served import Served, served_model
from ..tool_calls import ToolCallSplitter
from ..usage import usage_body
from ..whole_answer import WholeAnswer

if TYPE_CHECKING:
    from ....runtime.runtime import PreparedChat, TextStream
    from ....runtime.sampling import SamplingParams

router = APIRouter(route_class=JsonRoute)


@router.post("/v1/chat/completions", response_model=CreateChatCompletionResponse, tags=["OpenAI"])
async def create_chat_completion(body: CreateChatCompletionRequest, request: Request) -> Response:
    """Answer a chat. With ``stream``: server-sent events of CreateChatCompletionStreamResponse."""
    served = served_model(request, body.model)
    wants_usage_event(body)
    streams = await _start(body, served, request)
    markers = served.runtime.profile.tool_call if body.tools and body.tool_choice != "none" else None

    def new_splitter() -> ToolCallSplitter | None:
        return ToolCallSplitter(markers) if markers else None

    if body.stream:
        return _events(body, served, streams, new_splitter)
    head = served.head("chat.completion", "chatcmpl", int(time.time()))
    logprobs = bool(body.logprobs)
    return WholeAnswer(streams, lambda answers: chat_body(head, answers, logprobs=logprobs, new_splitter=new_splitter))


@router.post("/apply-template", response_model=ApplyTemplateResponse, tags=["text"])
async def apply_template(body: ApplyTemplateRequest, request: Request) -> dict[str, str]:
    """The prompt that a chat with these messages would give the model."""
    runtime = served_model(request, body.model).runtime

    def render() -> str:
        prompt = chat_prompt(body, runtime)
        return runtime.render(prompt.messages, **prompt.arguments())

    return {"prompt": await prepared(request, render)}


async def _start(body: CreateChatCompletionRequest, served: Served, request: Request) -> "list[TextStream]":
    runtime = served.runtime

    def prepare() -> "tuple[PreparedChat, SamplingParams]":
        prompt = chat_prompt(body, runtime, body.tool_choice)
        params = sampling_params(
            body,
            runtime,
            max_tokens=_max_tokens(body, served),
            top_logprobs=_top_logprobs(body),
            grammar=grammar_of(body),
        )
        return runtime.prepare(prompt.messages, **prompt.arguments()), params

    prompt, params = await prepared(request, prepare)
    try:
        return runtime.chat(
            prompt,
            params,
            stop=stop_texts(body),
            n=number_of_choices(body, served),
            include_stop=bool(body.include_stop_str_in_output),
        )
    except RequestError as error:
        if error.param == "grammar" and body.grammar is None:
            if not runtime.engine.capabilities.grammar:
                raise bad_request(str(error), "response_format") from error
            raise bad_request("the schema refers to itself without end", SCHEMA_PARAM) from error
        raise


def _events(
    body: CreateChatCompletionRequest,
    served: Served,
    streams: "list[TextStream]",
    new_splitter: NewSplitter,
) -> EventStream:
    head = served.head("chat.completion.chunk", "chatcmpl", int(time.time()))
    with_usage, logprobs = wants_usage_event(body), bool(body.logprobs)
    events = [
        ChatEvents(head, idx, usage=with_usage, logprobs=logprobs, splitter=new_splitter())
        for idx in range(len(streams))
    ]

    def last() -> bytes:
        return usage_event(head, usage_body([[stream.usage for stream in streams]])) if with_usage else b""

    return EventStream(streams, events, last)


def _max_tokens(body: CreateChatCompletionRequest, served: Served) -> int | None:
    param = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    max_tokens = getattr(body, param)
    if body.max_tokens not in (None, max_tokens):
        raise bad_request("max_tokens and max_completion_tokens are the same thing: send one", "max_tokens")
    check_max_tokens(max_tokens, served, param, least=1)
    return max_tokens


def _top_logprobs(body: CreateChatCompletionRequest) -> int | None:
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs is not None:
        raise bad_request("top_logprobs needs logprobs: true", "top_logprobs")
    return None
