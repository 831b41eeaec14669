"""What a chat template gets to see of a request, checked against what the template can show."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import bad_request
from .schema.chat_request import PromptFields
from .schema.messages import NamedToolChoice, ToolChoice

if TYPE_CHECKING:
    from ...runtime.runtime import Runtime


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """The arguments of ``Runtime.render`` and ``Runtime.chat`` that make the prompt."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    documents: list[dict[str, Any]] | None
    template_kwargs: dict[str, Any] | None
    add_generation_prompt: bool
    continue_final_message: bool

    def arguments(self) -> dict[str, Any]:
        """All but the messages, by name."""
        return {
            "tools": self.tools,
            "documents": self.documents,
            "template_kwargs": self.template_kwargs,
            "add_generation_prompt": self.add_generation_prompt,
            "continue_final_message": self.continue_final_message,
        }


def chat_prompt(body: PromptFields, runtime: "Runtime", tool_choice: ToolChoice | None = None) -> ChatPrompt:
    """The prompt's ingredients. 400 for what the model's template would not show."""
    tools = _offered_tools(body, tool_choice)
    template = runtime.template_for(tools)
    if tools and not template.uses("tools"):
        raise bad_request("the model's chat template knows no tools", "tools")
    if body.documents and not template.uses("documents"):
        raise bad_request("the model's chat template knows no documents", "documents")
    for name in body.chat_template_kwargs or {}:
        if not template.uses(name):
            message = f"the model's chat template has no variable {name[:100]!r}"
            raise bad_request(message, f"chat_template_kwargs.{name[:100]}")
    continues = bool(body.continue_final_message)
    begins = not continues if body.add_generation_prompt is None else body.add_generation_prompt
    if continues and begins:
        message = "add_generation_prompt and continue_final_message exclude each other"
        raise bad_request(message, "add_generation_prompt")
    return ChatPrompt(
        messages=[{"content": None, **message.model_dump(exclude_none=True)} for message in body.messages],
        tools=tools,
        documents=body.documents or None,
        template_kwargs=body.chat_template_kwargs,
        add_generation_prompt=begins,
        continue_final_message=continues,
    )


def _offered_tools(body: PromptFields, choice: ToolChoice | None) -> list[dict[str, Any]] | None:
    if isinstance(choice, NamedToolChoice) or choice == "required":
        raise bad_request("a tool call cannot be forced: tool_choice must be none or auto", "tool_choice")
    if not body.tools or choice == "none":
        return None
    return [tool.model_dump(exclude_none=True) for tool in body.tools]
