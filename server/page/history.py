"""The chat as Gradio keeps it in the browser, and as messages for the model.

Gradio's form of a message is ``{"role", "content", "metadata"}``: content is a string or a list of parts, of
which only text occurs here. Reasoning is a message of its own, marked by a title in its metadata, which the
browser folds.
"""

from collections.abc import Iterator, Sequence
from typing import Any

ChatValue = list[dict[str, Any]]

REASONING_TITLE = "Reasoning"


def user_message(text: str) -> dict[str, Any]:
    """What the user said, in Gradio's form."""
    return {"role": "user", "content": text}


def answer_messages(content: str, reasoning: str, is_done: bool) -> ChatValue:
    """An answer in Gradio's form: its reasoning, folded once the answer begins or is done, and its text."""
    answer = {"role": "assistant", "content": content}
    if not reasoning:
        return [answer]
    status = "done" if content or is_done else "pending"
    return [
        {"role": "assistant", "content": reasoning, "metadata": {"title": REASONING_TITLE, "status": status}},
        answer,
    ]


def model_messages(chat: Sequence[dict[str, Any]], system: str) -> list[dict[str, str]]:
    """The chat as the model's messages, the system prompt first unless it is blank."""
    messages = [{"role": "system", "content": system.strip()}] if system.strip() else []
    return messages + list(_turns(chat))


def text_of(message: dict[str, Any]) -> str:
    """The text of a message, whichever of Gradio's forms its content has."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part if isinstance(part, str) else part.get("text", "") for part in content)


def cut_before(chat: Sequence[dict[str, Any]], index: int) -> tuple[ChatValue, str]:
    """The chat before the last user message at or before ``index``, and the text of that message."""
    for position in range(min(index, len(chat) - 1), -1, -1):
        if chat[position]["role"] == "user":
            return list(chat[:position]), text_of(chat[position])
    return list(chat), ""


def _turns(chat: Sequence[dict[str, Any]]) -> Iterator[dict[str, str]]:
    reasoning = ""
    for message in chat:
        if _is_reasoning(message):
            reasoning = text_of(message)
            continue
        turn = {"role": message["role"], "content": text_of(message)}
        yield turn | {"reasoning_content": reasoning} if reasoning else turn
        reasoning = ""


def _is_reasoning(message: dict[str, Any]) -> bool:
    return bool((message.get("metadata") or {}).get("title"))
