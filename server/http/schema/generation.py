"""What chat and plain completions have in common: how tokens are chosen, and where they end."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from .base import MAX_INT, Name, RequestModel
from .harmless import Harmless

MAX_STOPS = 64
MAX_GRAMMAR_CHARS = 65_536

Penalty = Annotated[float, Field(ge=-2, le=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=MAX_INT)]
PositiveCount = Annotated[int, Field(ge=1, le=MAX_INT)]
StopText = Annotated[str, Field(min_length=1, max_length=1000)]


def by_shape(shape: Callable[[Any], str | None], expected: str) -> Discriminator:
    """Tells the branches of a union apart by the value's JSON shape: one error instead of one a branch."""
    return Discriminator(
        shape,
        custom_error_type="shape",
        custom_error_message=f"must be {expected}",
    )


def _text_or_list(value: Any) -> str | None:
    return "(text)" if isinstance(value, str) else "(list)" if isinstance(value, list) else None


Stop = Annotated[
    Annotated[StopText, Tag("(text)")] | Annotated[list[StopText], Field(max_length=MAX_STOPS), Tag("(list)")],
    by_shape(_text_or_list, "a string or a list of strings"),
]


class StreamOptions(RequestModel):
    """Options of a stream."""

    include_usage: bool | None = Field(
        None, description="Send the token counts in one more chunk, with no choices, before the end."
    )
    include_obfuscation: Literal[False] | None = Field(None, description="Chunks are never padded.")


class GenerationRequest(Harmless):
    """Parameters of every request that makes tokens. What is left out or null takes the model's default."""

    model: Name | None = Field(None, description="The served model, as /v1/models names it; may be left out.")
    stream: bool | None = Field(None, description="Answer as server-sent events.")
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = Field(None, description="The most tokens to make.")
    n: Annotated[int, Field(ge=1, le=128)] | None = Field(None, description="How many answers to make.")
    stop: Stop | None = Field(
        None, description="Texts that end the answer, besides the model's own. They are not part of it."
    )
    include_stop_str_in_output: bool | None = Field(None, description="Keep the matched stop in the answer.")
    ignore_eos: bool | None = Field(None, description="Never end on an end-of-generation token.")

    temperature: Annotated[float, Field(ge=0, le=100)] | None = Field(None, description="0 is greedy.")
    top_p: Share | None = None
    top_k: Count | None = Field(None, description="0 switches it off.")
    min_p: Share | None = None
    typical_p: Share | None = None
    repeat_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = Field(
        None, description="Another name for repeat_penalty."
    )
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    penalty_last_n: Count | None = Field(None, description="How many last tokens the penalties look at.")
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, description="Token ids, as strings, to what is added to their logits."
    )
    grammar: Annotated[str, Field(min_length=1, max_length=MAX_GRAMMAR_CHARS)] | None = Field(
        None, description="A GBNF grammar that the answer follows."
    )
