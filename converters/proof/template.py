"""Whether an artifact's chat templates write every conversation as its source's do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...runtime.chat.template import ChatTemplate
from ...runtime.errors import ModelError, RequestError
from ...runtime.profile import ModelProfile

_SYSTEM = {"role": "system", "content": "Answer in one sentence."}
_USER = {"role": "user", "content": "What is the capital of France?"}
_ANSWER = {"role": "assistant", "content": "Paris, since about 987."}
_NEXT = {"role": "user", "content": "  And of Japan?\n"}
_THOUGHT = {**_ANSWER, "reasoning_content": "They ask for a city."}
_CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
    ],
}
_RESULT = {"role": "tool", "tool_call_id": "call00001", "name": "weather", "content": '{"celsius": 21}'}
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


@dataclass(slots=True)
class TemplateReport:
    """How many conversations both sides wrote alike or refused alike; ``problems`` has a line a difference."""

    templates: tuple[str, ...]
    rendered: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For the proof file."""
        return {
            "passed": not self.problems,
            "templates": list(self.templates),
            "rendered": self.rendered,
            "refused": self.refused,
        }


def check_templates(
    sources: Mapping[str, str], bos_token: str | None, eos_token: str | None, profile: ModelProfile
) -> TemplateReport:
    """``sources`` are the source's templates by name, with its tokens; ``profile`` is the artifact's."""
    report = TemplateReport(tuple(sources))
    for name in sorted({*sources, *profile.chat_templates}):
        if name not in sources or name not in profile.chat_templates:
            where = "artifact" if name in profile.chat_templates else "source"
            report.problems.append(f"only the {where} has the chat template {name!r}")
            continue
        try:
            wanted = ChatTemplate(sources[name], bos_token=bos_token, eos_token=eos_token, name=name)
            found = ChatTemplate(
                profile.chat_templates[name], bos_token=profile.bos_token, eos_token=profile.eos_token, name=name
            )
        except ModelError as error:
            report.problems.append(str(error))
            continue
        _compare(wanted, found, report)
    return report


def _compare(wanted: ChatTemplate, found: ChatTemplate, report: TemplateReport) -> None:
    """All patterns; of several differences the first is told."""
    is_different = False
    for what, messages, options in _patterns(wanted.uses("tools") or found.uses("tools")):
        (text, error), other = _outcome(wanted, messages, options), _outcome(found, messages, options)
        if (text, error) == other:
            report.rendered += text is not None
            report.refused += text is None
        elif not is_different:
            is_different = True
            report.problems.append(f"the chat template {wanted.name!r} writes {what} differently")


def _outcome(template: ChatTemplate, messages: list[Any], options: dict[str, Any]) -> tuple[str | None, str | None]:
    try:
        return template.render(messages, **options), None
    except RequestError as error:
        return None, str(error)


def _patterns(with_tools: bool) -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    chats: dict[str, list[Any]] = {
        "a question": [_USER],
        "a question after a system message": [_SYSTEM, _USER],
        "an answered question": [_USER, _ANSWER],
        "two questions": [_USER, _ANSWER, _NEXT],
        "two questions after a system message": [_SYSTEM, _USER, _ANSWER, _NEXT],
        "a long conversation": [_SYSTEM, _USER, _ANSWER, _NEXT, _ANSWER, _USER],
        "reasoning": [_USER, _THOUGHT, _NEXT],
        "two questions in a row": [_USER, _NEXT],
        "a system message alone": [_SYSTEM],
        "an unknown role": [{"role": "narrator", "content": "Night falls."}, _USER],
        "an empty answer": [_USER, {"role": "assistant", "content": ""}, _NEXT],
    }
    for what, messages in chats.items():
        for prompt in (True, False):
            yield what, messages, {"add_generation_prompt": prompt}
    yield "a question with thinking off", [_USER], {"enable_thinking": False}
    if with_tools:
        for messages in ([_USER], [_SYSTEM, _USER], [_USER, _CALL, _RESULT], [_USER, _CALL, _RESULT, _ANSWER, _NEXT]):
            for prompt in (True, False):
                yield "a conversation with tools", messages, {"tools": _TOOLS, "add_generation_prompt": prompt}
