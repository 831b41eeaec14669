"""The text a divergence is measured on: conversations of our own making, in the model's chat format.

``heldout.txt`` is no part of the text that importance matrices are collected from. A conversation in it starts
with a line ``=== title``, a turn with ``>>> role``; a file without such lines is cut into pieces, each the question
(its first line) and answer (the rest) of one conversation.
"""

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ...runtime.chat.template import ChatTemplate
from ...runtime.errors import ConfigError, RequestError
from ...runtime.profile import ModelProfile

Conversation = list[dict[str, str]]

_HELDOUT = Path(__file__).with_name("heldout.txt")
_PIECE_CHARS = 2000
_TITLE = re.compile(r"^=== .*\n", re.MULTILINE)
_TURN = re.compile(r"^>>> (system|user|assistant)\n", re.MULTILINE)


class TextSource(NamedTuple):
    """Which text it is: a name for people, and what ``sha256sum`` says of the file."""

    name: str
    sha256: str


def text_source(path: Path | None = None) -> TextSource:
    """The identity of what ``read_conversations`` reads. ConfigError when it cannot be read."""
    try:
        digest = sha256((path or _HELDOUT).read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    return TextSource(path.name if path else "tapster's held-out text", digest)


def read_conversations(path: Path | None = None) -> list[Conversation]:
    """The conversations of a text file (None: the held-out text of the package). ConfigError when there are none."""
    path = path or _HELDOUT
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    parts = [part for part in _TITLE.split(text) if part.strip()]
    conversations = [_turns(part) for part in parts] if _TURN.search(text) else list(map(_as_answer, _pieces(text)))
    if not conversations:
        raise ConfigError(f"{path} has no text")
    return conversations


def chat_texts(profile: ModelProfile, conversations: list[Conversation]) -> list[str]:
    """Each conversation as the model's template writes it. What a template refuses, such as a system message, is left
    out; without a template the bare texts are used."""
    source = profile.chat_templates.get("default")
    if source is None:
        return ["\n\n".join(message["content"] for message in chat) for chat in conversations]
    template = ChatTemplate(source, bos_token=profile.bos_token, eos_token=profile.eos_token)
    return [text for chat in conversations if (text := _rendered(template, chat))]


def _rendered(template: ChatTemplate, chat: Conversation) -> str | None:
    without_system = [message for message in chat if message["role"] != "system"]
    for messages in (chat, without_system):
        try:
            return template.render(messages, add_generation_prompt=False)
        except RequestError:
            continue
    return None


def _turns(text: str) -> Conversation:
    pieces = _TURN.split(text)[1:]
    return [
        {"role": role, "content": content.strip("\n")} for role, content in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def _pieces(text: str) -> Iterator[str]:
    """Paragraphs put together to pieces of some length; a longer paragraph is cut where it is long enough."""
    piece = ""
    for paragraph in re.split(r"\n\s*\n", text):
        for start in range(0, len(paragraph), _PIECE_CHARS):
            part = paragraph[start : start + _PIECE_CHARS]
            if piece and len(piece) + len(part) > _PIECE_CHARS:
                yield piece
                piece = ""
            piece = f"{piece}\n\n{part}".strip("\n")
    if piece.strip():
        yield piece


def _as_answer(piece: str) -> Conversation:
    question, _, answer = piece.strip().partition("\n")
    messages = [{"role": "user", "content": question}]
    return [*messages, {"role": "assistant", "content": answer.strip()}] if answer.strip() else messages
