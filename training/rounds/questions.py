"""Questions whose answers can be checked, from conversations that end with the right one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .answers import Checker, can_check, checker_of, split_answer

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """``messages`` up to the answer, what is right, and how that is told. ``is_apart``: the rationale is a message's
    ``reasoning_content`` and no part of its text."""

    messages: tuple[Message, ...]
    gold: str
    checker: Checker
    is_apart: bool


def questions_of(
    conversations: Iterable[Iterable[Message]], checker: Checker | Literal["auto"], limit: int | None
) -> tuple[list[Question], int]:
    """The first ``limit`` questions that ``checker`` can check; each is asked once. And how many before the last of
    them it cannot."""
    found: dict[str, Question] = {}
    left_out = 0
    for messages in conversations:
        question = _question(tuple(messages), checker)
        if question is None:
            left_out += 1
        else:
            found.setdefault(json.dumps(question.messages, sort_keys=True), question)
        if limit is not None and len(found) == limit:
            break
    return list(found.values()), left_out


def _question(messages: tuple[Message, ...], checker: Checker | Literal["auto"]) -> Question | None:
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        return None
    last = messages[-1]
    reasoning = last.get("reasoning_content") or ""
    worked = split_answer(last["content"], reasoning)
    gold = worked.answer if worked else last["content"]
    told_by = checker_of(gold) if checker == "auto" else checker
    if told_by is None or not can_check(gold, told_by):
        return None
    return Question(messages[:-1], gold, told_by, bool(reasoning))


def fingerprint(questions: Iterable[Question]) -> str:
    """SHA-256 of the questions, their answers and how these are checked, in order."""
    digest = hashlib.sha256()
    for question in questions:
        digest.update(json.dumps(asdict(question), sort_keys=True).encode())
    return digest.hexdigest()
