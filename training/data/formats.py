"""Rows of known data sets as conversations and documents.

``text``        text (or content)
``chat``        messages or conversations: a list of role and content, or of from and value (ShareGPT)
``completion``  prompt and completion (or response): texts, or lists of messages
``dolly``       instruction, context, response (databricks-dolly-15k); also Alpaca's instruction, input, output
``oasst``       OpenAssistant: single messages or whole trees, see ``oasst.py``
``tinycot``     prompt, rationale, target: the rationale stands apart from the answer
``gsm8k``       question and answer, where the number stands behind ``####``
A row with ``teacher_text`` is one of our own text cache, whatever else it has. Where a teacher will answer, the answer
may be missing in all of them.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from .examples import Conversation, Document, Example, Message, Unusable
from .oasst import is_message, tree_conversation

Row = Mapping[str, Any]
Convert = Callable[[Row], Example]

_ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "instruction"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "chatbot", "model", "chatgpt", "response"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    "tool": "tool",
}
_CALCULATION = re.compile(r"<<[^<>]*>>")


def detect_format(row: Row, *, needs_answer: bool = True) -> str:
    """The format of a row. Unusable when it is none that is known."""
    keys = {key for key, value in row.items() if value is not None}
    for name, is_it in _SIGNS.items():
        if is_it(keys, row):
            return name
    for name, question in () if needs_answer else _QUESTIONS.items():
        if question in keys:
            return name
    raise Unusable(
        f"no known format has the columns {', '.join(sorted(row)) or '(none)'}: "
        f"rename them, or choose data.format among {', '.join(FORMATS)}"
    )


def converter(name: str, *, needs_answer: bool = True) -> Convert:
    """What turns a row of the format, or with ``auto`` of any, into an example. It raises Unusable for a row that is of
    no use. ``needs_answer``: a conversation has to end with an answer; else it may end with a question."""
    ends = ("assistant",) if needs_answer else ("assistant", "user")

    def with_columns(row: Row) -> Example:
        form = detect_format(row, needs_answer=needs_answer) if name == "auto" else name
        example = _from_teacher(row) if isinstance(row.get("teacher_text"), str) else FORMATS[form](row)
        if isinstance(example, Document):
            return Document(_sound(example.text), numbers_of(row))
        messages = _up_to_last(example.messages, ends)
        return Conversation(messages, numbers_of(row) if form != "oasst" else {})

    return with_columns


def numbers_of(row: Row) -> dict[str, float]:
    """The numbers among the values of a row, as they are; those of a text cache are among them."""
    return {key: value for key, value in row.items() if isinstance(value, int | float) and not isinstance(value, bool)}


def _up_to_last(messages: Sequence[Message], roles: Collection[str]) -> list[Message]:
    """Up to the last one of these roles. Unusable where there is none."""
    stop = max((idx for idx, message in enumerate(messages, 1) if message["role"] in roles), default=0)
    if not stop:
        raise Unusable("it has no answer of an assistant" if "user" not in roles else "it has no question")
    return [{key: value and _sound(value) for key, value in message.items()} for message in messages[:stop]]


def _sound(text: str) -> str:
    """Unusable for a text that UTF-8 cannot hold: JSON may hold half of a surrogate pair."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unusable("its text holds half of a surrogate pair, which is no character") from None
    return text


def _text(row: Row) -> Document:
    return Document(_required(row, "text", "content"))


def _chat(row: Row) -> Conversation:
    turns = next((row[key] for key in ("messages", "conversations", "conversation") if row.get(key) is not None), None)
    chat = _conversation(turns)
    system = _optional(row, "system")
    if system is None or chat.messages[0]["role"] == "system":
        return chat
    return Conversation([{"role": "system", "content": system}, *chat.messages])


def _completion(row: Row) -> Conversation:
    prompt = row.get("prompt")
    completion = next((row[key] for key in ("completion", "response") if row.get(key) is not None), None)
    if isinstance(prompt, list) and isinstance(completion, list):
        return _conversation([*prompt, *completion])
    if isinstance(prompt, list) and completion is None:
        return _conversation(prompt)
    return _exchange(_required(row, "prompt"), _optional(row, "completion", "response"))


def _dolly(row: Row) -> Conversation:
    question, context = _required(row, "instruction"), _optional(row, "context", "input")
    return _exchange(f"{question}\n\n{context}" if context else question, _optional(row, "response", "output"))


def _tinycot(row: Row) -> Conversation:
    """Also rows of GSM8K, whose worked solution is the rationale."""
    if row.get("rationale") is not None:
        question, answer = _required(row, "prompt", "question"), _optional(row, "target", "answer")
        return _exchange(question, answer, _optional(row, "rationale"))
    rationale, mark, target = (_solution(row) or "").rpartition("####")
    if not mark or not rationale.strip():
        raise Unusable("it has no rationale")
    return _exchange(_required(row, "question", "prompt"), target, rationale)


def _gsm8k(row: Row) -> Conversation:
    return _exchange(_required(row, "question"), _solution(row))


def _solution(row: Row) -> str | None:
    """Without the notes for a calculator, ``<<48/2=24>>``, which nobody wants in an answer."""
    answer = _optional(row, "answer")
    return answer and _CALCULATION.sub("", answer)


def _from_teacher(row: Row) -> Conversation:
    if row.get("finish_reason") == "length":
        raise Unusable("the teacher's answer was cut off")
    asked = row.get("messages")
    if not isinstance(asked, list) or not asked:
        asked = [{"role": "user", "content": _required(row, "prompt")}]
    return _conversation([*asked, {"role": "assistant", "content": row["teacher_text"]}])


def _oasst(row: Row) -> Conversation:
    return Conversation(tree_conversation(row))


def _exchange(question: str, answer: str | None, reasoning: str | None = None) -> Conversation:
    asked: Message = {"role": "user", "content": question.strip()}
    if answer is None:
        return _conversation([asked])
    message: Message = {"role": "assistant", "content": answer.strip()}
    if reasoning is not None:
        message["reasoning_content"] = reasoning.strip()
    return _conversation([asked, message])


def _conversation(turns: object) -> Conversation:
    """All turns. Unusable when one has no role or no text."""
    if not isinstance(turns, list) or not turns:
        raise Unusable("it has no messages")
    return Conversation([_message(turn) for turn in turns])


def _message(turn: object) -> Message:
    if not isinstance(turn, Mapping):
        raise Unusable("a message is no object")
    said = turn.get("role", turn.get("from"))
    role = _ROLES.get(str(said).lower())
    if role is None:
        raise Unusable(f"a message has the role {said!r}")
    content = _joined(turn.get("content", turn.get("value")))
    reasoning = _optional(turn, "reasoning_content", "reasoning", "thinking")
    if content is None or not (content.strip() or reasoning):
        raise Unusable(f"a message of the {role} has no text")
    message: Message = {"role": role, "content": content}
    return {**message, "reasoning_content": reasoning} if reasoning else message


def _joined(content: object) -> str | None:
    """The text of a message, whose content may be a list of text parts."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        return "\n".join(texts) if len(texts) == len(parts) else None
    return content if isinstance(content, str) else None


def _required(row: Row, *names: str) -> str:
    """The text of the first of these columns that the row has. Unusable where that is empty."""
    text = _optional(row, *names)
    if text is None:
        raise Unusable(f"{' or '.join(names)} is empty")
    return text


def _optional(row: Row, *names: str) -> str | None:
    """The same, or None where there is none. Unusable for what is no text."""
    value = next((row[name] for name in names if row.get(name) not in (None, "")), "")
    if not isinstance(value, str):
        raise Unusable(f"{' or '.join(names)} is no text")
    return value if value.strip() else None


_SIGNS: dict[str, Callable[[set[str], Row], bool]] = {
    "chat": lambda keys, _: bool(keys & {"messages", "conversations", "conversation"}),
    "oasst": lambda _, row: is_message(row) or isinstance(row.get("prompt"), dict),
    "dolly": lambda keys, _: "instruction" in keys and bool(keys & {"response", "output"}),
    "tinycot": lambda keys, _: {"prompt", "rationale", "target"} <= keys,
    "gsm8k": lambda keys, _: {"question", "answer"} <= keys,
    "completion": lambda keys, _: "prompt" in keys and bool(keys & {"completion", "response", "teacher_text"}),
    "text": lambda keys, _: bool(keys & {"text", "content"}),
}
_QUESTIONS = {"completion": "prompt", "gsm8k": "question", "dolly": "instruction"}
"""Which column asks, in rows of one of these formats that have no answer."""

FORMATS: dict[str, Convert] = {
    "text": _text,
    "chat": _chat,
    "completion": _completion,
    "dolly": _dolly,
    "oasst": _oasst,
    "tinycot": _tinycot,
    "gsm8k": _gsm8k,
}
