"""A model's chat template: messages in, prompt text out."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, meta, nodes

from ..errors import ModelError, RequestError
from .bounds import TemplateTooCostly
from .messages import Message, checked, joined, variants, with_reasoning
from .probe import reads_content
from .sandbox import TemplateRefusal, compile_bounded

_CUT = "Kxq7CutVz2 "
_RESERVED = ("messages", "add_generation_prompt", "tools", "documents")


class ChatTemplate:
    """A Jinja chat template, compiled once. ModelError when the source is no valid Jinja.

    It renders what transformers' ``apply_chat_template`` renders, and is kinder to templates that know less
    than the request: text parts are joined for templates that read plain text, a ``developer`` message
    becomes a ``system`` message, and the forms of tool calls and nulls that templates disagree about are
    tried in turn.
    """

    def __init__(self, source: str, *, bos_token: str | None, eos_token: str | None, name: str = "default") -> None:
        self.source = source
        self.name = name
        tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._tokens = {key: token for key, token in tokens.items() if token is not None}
        self._reads_by_role: dict[str, tuple[bool, bool]] = {}
        try:
            self._tree, self._render = compile_bounded(source)
            self._variables = meta.find_undeclared_variables(self._tree)
        except Exception as error:
            line = f" at line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
            raise ModelError(f"chat template {name!r} is no valid Jinja{line}: {_one_line(error)}") from error

    def uses(self, variable: str) -> bool:
        """Whether the template reads this variable: ``tools``, ``documents``, ``enable_thinking`` …"""
        return variable in self._variables

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> str:
        """The prompt. ``kwargs`` are further variables for the template, such as ``enable_thinking``.

        With ``continue_final_message`` the prompt ends where the last message's text ends, so that the model
        goes on with it. RequestError when the messages have the wrong shape, or when the template refuses
        them or fails.
        """
        if reserved := [name for name in _RESERVED if name in kwargs]:
            raise RequestError(f"a request cannot set the template's {reserved[0]!r}", "chat_template_kwargs")
        settings = {"add_generation_prompt": add_generation_prompt, "tools": tools, "documents": documents}
        variables = {**self._tokens, **kwargs, **settings}
        try:
            chat = [self._adapted(message) for message in checked(messages)]
            if continue_final_message:
                return _sound(self._render_open(chat, variables))
            return _sound(self._render_variants(chat, variables))
        except RecursionError:
            raise RequestError("messages are nested too deeply", param="messages") from None

    def _render_variants(self, chat: list[Message], variables: dict[str, Any]) -> str:
        """The first variant that the template takes; when it takes none, the error of the first."""
        first_error: Exception | None = None
        for variant in variants(chat, self._looks_for_null):
            try:
                return self._render({**variables, "messages": variant})
            except Exception as error:  # noqa: BLE001  a template is a stranger's program: it may raise anything
                first_error = first_error or error
                if isinstance(error, TemplateTooCostly):
                    break
        assert first_error is not None
        said = "refuses" if isinstance(first_error, TemplateRefusal) else "fails on"
        message = f"the chat template {said} these messages: {_one_line(first_error)}"
        raise RequestError(message, param="messages") from first_error

    def _render_open(self, chat: list[Message], variables: dict[str, Any]) -> str:
        """Renders with a mark behind the final message's text and cuts there.

        A template may trim the text: then the space at the end of the mark is gone, and white space at the
        end of the text goes too, as it would have gone without the mark.
        """
        if variables["add_generation_prompt"]:
            message = "the final message is continued or a new one begins: set add_generation_prompt to false"
            raise RequestError(message, param="continue_final_message")
        content = chat[-1]["content"]
        if not content:
            raise RequestError("the final message has no text to continue", param="continue_final_message")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = parts[-1]["text"]
        marked: Any = [*parts[:-1], {"type": "text", "text": text + _CUT}]
        if isinstance(content, str):
            marked = joined(marked)
        prompt = self._render_variants([*chat[:-1], {**chat[-1], "content": marked}], variables)
        head, mark, tail = prompt.rpartition(_CUT.strip())
        if not mark or text.strip() not in head:
            message = "the chat template leaves out text of the final message, so it cannot be continued"
            raise RequestError(message, param="continue_final_message")
        return head if tail.startswith(" ") else head.rstrip()

    def _adapted(self, message: Message) -> Message:
        """The message in this template's words: its roles, its form of content, its names for reasoning."""
        role, content = message["role"], message["content"]
        if role == "developer" and not self._knows_developer:
            role = "system"
        reads_text, reads_parts = self._reads(role)
        if isinstance(content, list) and not reads_parts:
            content = joined(content)
        elif isinstance(content, str) and reads_parts and not reads_text:
            content = [{"type": "text", "text": content}]
        return with_reasoning({**message, "role": role, "content": content})

    def _reads(self, role: str) -> tuple[bool, bool]:
        """Whether the template reads a text, and whether it reads a list of parts, from this role."""
        role = role if role in ("system", "assistant", "tool") else "user"
        if role not in self._reads_by_role:
            self._reads_by_role[role] = reads_content(self._render, self._tokens, role)
        return self._reads_by_role[role]

    @cached_property
    def _knows_developer(self) -> bool:
        return any(node.value == "developer" for node in self._tree.find_all(nodes.Const))

    @cached_property
    def _looks_for_null(self) -> bool:
        """Whether the template asks of a message if its content is none."""
        tested = [test.node for test in self._tree.find_all(nodes.Test) if test.name == "none"]
        names = [node.attr for node in tested if isinstance(node, nodes.Getattr)]
        keys = [node.arg for node in tested if isinstance(node, nodes.Getitem)]
        return "content" in names or any(isinstance(key, nodes.Const) and key.value == "content" for key in keys)


def _sound(prompt: str) -> str:
    """The prompt, if it can be written as UTF-8; JSON lets half of a surrogate pair through."""
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ascii(prompt[error.start])
        raise RequestError(f"messages hold {half}, half of a surrogate pair", param="messages") from None
    return prompt


def _one_line(error: Exception) -> str:
    text = error.message if isinstance(error, TemplateError) else str(error)
    return " ".join((text or type(error).__name__).split())
