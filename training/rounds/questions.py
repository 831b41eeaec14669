"""Questions whose answers can be checked, from conversations that end with the right one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .answers import Checker, can_check, split_answer

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """``messages`` up to the answer, and what is right. ``is_apart``: the rationale is a message's
    ``reasoning_content`` and no part of its text."""

    messages: tuple[Message, ...]
    gold: str
    is_apart: bool


def questions_of(conversations: Iterable[Iterable[Message]], checker: Checker, limit: int | None) -> list[Question]:
    """The first ``limit`` questions that ``checker`` can check; each is asked once."""
    found: dict[str, Question] = {}
    for messages in conversations:
        question = _question(tuple(messages), checker)
        if question is not None:
            found.setdefault(json.dumps(question.messages, sort_keys=True), question)
        if limit is not None and len(found) == limit:
            break
    return list(found.values())


def _question(messages: tuple[Message, ...], checker: Checker) -> Question | None:
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        return None
    last = messages[-1]
    reasoning = last.get("reasoning_content") or ""
    worked = split_answer(last["content"], reasoning)
    gold = worked.answer if worked else last["content"]
    return Question(messages[:-1], gold, bool(reasoning)) if can_check(gold, checker) else None


def fingerprint(questions: Iterable[Question]) -> str:
    """SHA-256 of the questions and their answers, in order."""
    digest = hashlib.sha256()
    for question in questions:
        digest.update(json.dumps([question.messages, question.gold, question.is_apart], sort_keys=True).encode())
    return digest.hexdigest()
