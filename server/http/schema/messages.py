"""The messages of a chat, and the tools that a model may call."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from .base import Name, RequestModel
from .generation import by_shape

Role = Literal["system", "developer", "user", "assistant", "tool"]


class TextPart(RequestModel):
    """A piece of a message. Models read text here; other kinds of parts are refused."""

    type: Literal["text"]
    text: str


def _text_or_parts(value: Any) -> str | None:
    return "(text)" if isinstance(value, str) else "(parts)" if isinstance(value, list) else None


Content = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[list[TextPart], Field(min_length=1), Tag("(parts)")],
    by_shape(_text_or_parts, "a string or a list of text parts"),
]


class FunctionCall(RequestModel):
    """A call of a function; ``arguments`` is JSON text."""

    name: Name
    arguments: str


class ToolCall(RequestModel):
    """A call that the assistant made."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class Message(RequestModel):
    """One turn. An assistant's message may be sent back as it came, with its null and empty fields."""

    role: Role
    content: Content | None = None
    name: str | None = None
    tool_call_id: str | None = Field(None, description="In a tool message: the call it answers.")
    tool_calls: list[ToolCall] | None = Field(None, description="In an assistant message.")
    reasoning_content: str | None = Field(None, description="In an assistant message: what came before the answer.")
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _has_what_its_role_needs(self) -> Self:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise PydanticCustomError("content", "a message of the {role} needs content", {"role": self.role})
        if self.tool_calls is not None and self.role != "assistant":
            raise PydanticCustomError("tool_calls", "only the assistant makes tool_calls", {})
        return self


class Function(RequestModel):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(RequestModel):
    """A tool that the model may use."""

    type: Literal["function"]
    function: Function


class NamedFunction(RequestModel):
    """Which function."""

    name: Name


class NamedToolChoice(RequestModel):
    """A demand for one certain call."""

    type: Literal["function"]
    function: NamedFunction


def _choice_shape(value: Any) -> str | None:
    return "(mode)" if isinstance(value, str) else "(named)" if isinstance(value, dict) else None


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("(mode)")] | Annotated[NamedToolChoice, Tag("(named)")],
    by_shape(_choice_shape, "none, auto, required or a named function"),
]
