"""The body of POST /v1/chat/completions, and of /apply-template, which is its first half."""

from typing import Annotated, Any, Literal

from pydantic import Field

from .base import Name, RequestModel
from .generation import GenerationRequest, PositiveCount
from .harmless import HarmlessForChat
from .messages import Message, Tool, ToolChoice


class JsonSchema(RequestModel):
    """A JSON schema that the answer follows."""

    name: Name
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextFormat(RequestModel):
    """Free text."""

    type: Literal["text"]


class JsonObjectFormat(RequestModel):
    """Some JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(RequestModel):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class PromptFields(RequestModel):
    """What a chat template turns into a prompt."""

    messages: Annotated[list[Message], Field(min_length=1)]
    tools: list[Tool] | None = Field(None, description="Needs a template that knows tools.")
    documents: list[dict[str, Any]] | None = Field(None, description="Needs a template that knows documents.")
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Further variables for the template, such as enable_thinking."
    )
    add_generation_prompt: bool | None = Field(None, description="Open the assistant's turn; true by default.")
    continue_final_message: bool | None = Field(
        None, description="Let the model go on with the last message instead of answering it."
    )


class ApplyTemplateRequest(PromptFields):
    """Render a chat without running it."""

    model: Name | None = None


class CreateChatCompletionRequest(PromptFields, GenerationRequest, HarmlessForChat):
    """A chat to answer."""

    max_tokens: PositiveCount | None = Field(None, description="The most tokens to make.")
    max_completion_tokens: PositiveCount | None = Field(None, description="Another name for max_tokens.")
    logprobs: bool | None = Field(None, description="Report the log-probability of every token.")
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(
        None, description="Also report this many of the most likely tokens; needs logprobs."
    )
    response_format: ResponseFormat | None = None
    tool_choice: ToolChoice | None = Field(
        None, description="none hides the tools; auto leaves it to the model. A call cannot be forced."
    )
