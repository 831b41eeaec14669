"""Rows of known data sets as conversations and documents.

``text``        text (or content)
``chat``        messages or conversations: a list of role and content, or of from and value (ShareGPT)
``completion``  prompt and completion (or response): texts, or lists of messages
``dolly``       instruction, context, response (databricks-dolly-15k); also Alpaca's instruction, input, output
``oasst``       OpenAssistant: single messages or whole trees, see ``oasst.py``
``tinycot``     prompt, rationale, target: the rationale stands apart from the answer
``gsm8k``       question and answer, where the number stands behind ``####``
A row with ``teacher_text`` is one of our own text cache, whatever else it has.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from ...runtime.errors import ConfigError
from .examples import Conversation, Document, Example, Message, Unusable
from .oasst import tree_conversation

Row = Mapping[str, Any]
Convert = Callable[[Row], Example]

_ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "instruction"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "chatbot", "model", "chatgpt", "response"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    "tool": "tool",
}
_CALCULATION = re.compile(r"<<[^<>]*>>")


def detect_format(row: Row) -> str:
    """The format of a data set by one of its rows. ConfigError when it is none that is known."""
    keys = {key for key, value in row.items() if value is not None}
    for name, is_it in _SIGNS.items():
        if is_it(keys, row):
            return name
    raise ConfigError(
        f"no known format has the columns {', '.join(sorted(row)) or '(none)'}: "
        f"rename them, or choose data.format among {', '.join(FORMATS)}"
    )


def converter(name: str) -> Convert:
    """What turns a row of the format into an example. It raises Unusable for a row that is of no use."""
    convert = FORMATS[name]

    def with_columns(row: Row) -> Example:
        example = _from_teacher(row) if isinstance(row.get("teacher_text"), str) else convert(row)
        if isinstance(example, Document):
            return Document(example.text, numbers_of(row))
        return Conversation(example.messages, numbers_of(row) if name != "oasst" else {})

    return with_columns


def numbers_of(row: Row) -> dict[str, float]:
    """The numbers among the values of a row; those of a text cache are among them."""
    return {
        key: float(value)
        for key, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _text(row: Row) -> Document:
    return Document(_required(row, "text", "content"))


def _chat(row: Row) -> Conversation:
    turns = next((row[key] for key in ("messages", "conversations", "conversation") if row.get(key) is not None), None)
    return _conversation(turns)


def _completion(row: Row) -> Conversation:
    prompt = row.get("prompt")
    completion = next((row[key] for key in ("completion", "response") if row.get(key) is not None), None)
    if isinstance(prompt, list) and isinstance(completion, list):
        return _conversation([*prompt, *completion])
    return _exchange(_required(row, "prompt"), _required(row, "completion", "response"))


def _dolly(row: Row) -> Conversation:
    context = row.get("context") or row.get("input") or ""
    question = _required(row, "instruction")
    return _exchange(
        f"{question}\n\n{context}" if str(context).strip() else question, _required(row, "response", "output")
    )


def _tinycot(row: Row) -> Conversation:
    """Also rows of GSM8K, whose worked solution is the rationale."""
    if row.get("rationale") is not None:
        return _exchange(_required(row, "prompt", "question"), _required(row, "target", "answer"), row["rationale"])
    rationale, mark, target = _solution(row).rpartition("####")
    if not mark or not rationale.strip():
        raise Unusable("it has no rationale")
    return _exchange(_required(row, "question", "prompt"), target, rationale)


def _gsm8k(row: Row) -> Conversation:
    return _exchange(_required(row, "question"), _solution(row))


def _solution(row: Row) -> str:
    """Without the notes for a calculator, ``<<48/2=24>>``, which nobody wants in an answer."""
    return _CALCULATION.sub("", _required(row, "answer"))


def _from_teacher(row: Row) -> Conversation:
    if row.get("finish_reason") == "length":
        raise Unusable("the teacher's answer was cut off")
    asked = row.get("messages") or [{"role": "user", "content": _required(row, "prompt")}]
    return _conversation([*asked, {"role": "assistant", "content": row["teacher_text"]}])


def _oasst(row: Row) -> Conversation:
    return Conversation(tree_conversation(row))


def _exchange(question: str, answer: str, reasoning: str | None = None) -> Conversation:
    message: Message = {"role": "assistant", "content": answer.strip()}
    if reasoning is not None:
        message["reasoning_content"] = reasoning.strip()
    return _conversation([{"role": "user", "content": question.strip()}, message])


def _conversation(turns: object) -> Conversation:
    """The turns up to the last answer. Unusable when one has no role or no text, or when nobody answers."""
    if not isinstance(turns, list) or not turns:
        raise Unusable("it has no messages")
    messages = [_message(turn) for turn in turns]
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if not messages:
        raise Unusable("it has no answer of an assistant")
    return Conversation(messages)


def _message(turn: object) -> Message:
    if not isinstance(turn, Mapping):
        raise Unusable("a message is no object")
    said = turn.get("role", turn.get("from"))
    role = _ROLES.get(str(said).lower())
    if role is None:
        raise Unusable(f"a message has the role {said!r}")
    content = _joined(turn.get("content", turn.get("value")))
    reasoning = next((turn[key] for key in ("reasoning_content", "reasoning", "thinking") if turn.get(key)), None)
    if content is None or not (content.strip() or reasoning):
        raise Unusable(f"a message of the {role} has no text")
    message: Message = {"role": role, "content": content}
    return {**message, "reasoning_content": str(reasoning)} if reasoning else message


def _joined(content: object) -> str | None:
    """The text of a message, whose content may be a list of text parts."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        return "\n".join(part for part in parts if part is not None) if None not in parts else None
    return content if isinstance(content, str) else None


def _required(row: Row, *names: str) -> str:
    """The text of the first of these columns that the row has."""
    value = next((row[name] for name in names if row.get(name) is not None), None)
    if not isinstance(value, str):
        raise Unusable(f"it has no text in {' or '.join(names)}")
    if not value.strip():
        raise Unusable(f"{' or '.join(names)} is empty")
    return value


_SIGNS: dict[str, Callable[[set[str], Row], bool]] = {
    "chat": lambda keys, _: bool(keys & {"messages", "conversations", "conversation"}),
    "oasst": lambda keys, row: {"parent_id", "role", "text"} <= keys | set(row) or isinstance(row.get("prompt"), dict),
    "dolly": lambda keys, _: "instruction" in keys and bool(keys & {"response", "output"}),
    "tinycot": lambda keys, _: {"prompt", "rationale", "target"} <= keys,
    "gsm8k": lambda keys, _: {"question", "answer"} <= keys,
    "completion": lambda keys, _: "prompt" in keys and bool(keys & {"completion", "response", "teacher_text"}),
    "text": lambda keys, _: bool(keys & {"text", "content"}),
}

FORMATS: dict[str, Convert] = {
    "text": _text,
    "chat": _chat,
    "completion": _completion,
    "dolly": _dolly,
    "oasst": _oasst,
    "tinycot": _tinycot,
    "gsm8k": _gsm8k,
}
