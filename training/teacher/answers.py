"""One question to a teacher, and the record of its answer."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...runtime.errors import TrainingError
from .base import Messages
from .consistency import difficulty, final_answer, self_consistency
from .endpoint import Endpoint, Refused, together
from .entropy import answer_entropy, entropy_of

_TOO_LONG = ("context_length_exceeded", "string_above_max_length")


@dataclass(frozen=True, slots=True)
class Question:
    """The messages that a teacher answers; ``reference`` is the answer that the data set has, if any."""

    messages: tuple[dict[str, str], ...]
    reference: str | None = None

    @property
    def id(self) -> str:
        """A hash of what is asked: the same question is asked once."""
        text = json.dumps(self.messages, ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Asking:
    """How all questions are asked. ``samples`` further answers at ``sample_temperature`` show the consistency."""

    model: str
    max_tokens: int = 512
    temperature: float = 0.0
    top_k: int = 20
    samples: int = 0
    sample_temperature: float = 0.7
    seed: int = 42

    def identity(self) -> dict[str, Any]:
        return asdict(self)


def question_of(messages: Messages) -> Question | None:
    """What is asked at the end of a conversation: everything before its last answer. None where nothing is."""
    plain = [{"role": str(one["role"]), "content": _sound(one["content"] or "")} for one in messages]
    reference = plain.pop()["content"] if plain and plain[-1]["role"] == "assistant" else None
    if not plain or plain[-1]["role"] != "user":
        return None
    return Question(tuple(plain), reference)


def _sound(text: str) -> str:
    """Half of a surrogate pair, which JSON may hold and UTF-8 may not, becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


async def answer(endpoint: Endpoint, question: Question, asking: Asking, vocab_size: int | None) -> dict[str, Any]:
    """The record of one answer.

    That an answer was cut off at ``max_tokens``, or empty, or a question too long for the teacher's context is recorded
    as well, with null for the ``teacher_text``, so that it is not asked again.
    """
    try:
        reply = await _ask(endpoint, question, asking, asking.temperature, asking.seed, with_logprobs=True)
    except Refused as refusal:
        if not _is_too_long(refusal):
            raise
        return _record(question, asking, None, "refused", {}, [], refusal.said)
    choice, usage = reply["choices"][0], reply.get("usage") or {}
    text, finish = _text(choice), str(choice.get("finish_reason"))
    if finish == "length" or not text.strip():
        return _record(question, asking, None, finish, usage, [])
    samples, used = await _samples(endpoint, question, asking)
    record = _record(question, asking, text, finish, _sum(usage, *used), samples)
    entropy = entropy_of(_tokens(choice), temperature=asking.temperature, vocab_size=vocab_size)
    if entropy is None and len(samples) > 1:
        entropy = answer_entropy([final_answer(sample) or sample for sample in samples])
    consistency = self_consistency(samples)
    known = entropy["output_entropy"] if entropy else None
    hard = difficulty(known, consistency, [text, *samples], question.reference)
    return {**record, **(entropy or {}), "self_consistency": consistency, "difficulty_score": hard}


def is_usable(record: Mapping[str, Any]) -> bool:
    """Whether a record holds a whole answer."""
    return isinstance(record.get("teacher_text"), str)


async def _samples(endpoint: Endpoint, question: Question, asking: Asking) -> tuple[list[str], list[Mapping[str, Any]]]:
    """Texts of those that are whole, and token counts of all. Requests of one answer each, with seeds of their own,
    which every server understands."""
    replies = await together(
        _ask(endpoint, question, asking, asking.sample_temperature, asking.seed + 1 + idx, with_logprobs=False)
        for idx in range(asking.samples)
    )
    choices = [reply["choices"][0] for reply in replies]
    whole = [_text(choice) for choice in choices if choice.get("finish_reason") != "length"]
    return whole, [reply.get("usage") or {} for reply in replies]


async def _ask(
    endpoint: Endpoint, question: Question, asking: Asking, temperature: float, seed: int, *, with_logprobs: bool
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": asking.model,
        "messages": list(question.messages),
        "max_tokens": asking.max_tokens,
        "temperature": temperature,
        "seed": seed,
    }
    if with_logprobs and asking.top_k:
        body |= {"logprobs": True, "top_logprobs": asking.top_k}
    reply = await endpoint.ask("POST", "/chat/completions", body)
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise TrainingError(f"the teacher at {endpoint.url} answers without choices: {str(reply)[:200]}")
    return reply


def _text(choice: Mapping[str, Any]) -> str:
    return str((choice.get("message") or {}).get("content") or "")


def _tokens(choice: Mapping[str, Any]) -> Sequence[Mapping[str, Any]] | None:
    return (choice.get("logprobs") or {}).get("content")


def _is_too_long(refusal: Refused) -> bool:
    """Whether it is this question that does not fit, rather than anything about how it is asked."""
    if refusal.code in _TOO_LONG or refusal.status == 413:
        return True
    return refusal.status == 400 and "context" in refusal.said.lower() and "length" in refusal.said.lower()


def _sum(*usages: Mapping[str, Any]) -> dict[str, int]:
    names = ("prompt_tokens", "completion_tokens")
    return {name: sum(int(usage.get(name) or 0) for usage in usages) for name in names}


def _record(
    question: Question,
    asking: Asking,
    text: str | None,
    finish: str,
    usage: Mapping[str, Any],
    samples: list[str],
    problem: str | None = None,
) -> dict[str, Any]:
    return {
        "id": question.id,
        "prompt": question.messages[-1]["content"],
        "messages": list(question.messages),
        "teacher_text": text,
        "finish_reason": finish,
        "output_entropy": None,
        "self_consistency": None,
        "difficulty_score": None,
        **({"samples": samples} if samples else {}),
        **({"problem": problem} if problem else {}),
        "usage": _sum(usage),
        "teacher": asking.identity(),
    }
