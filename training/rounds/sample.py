"""Answers of a model to questions, several to each, written to disk as they come."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ...runtime.errors import ContextOverflow, TapsterError, TrainingError
from ..recipe.schema import Rounds
from .answers import Worked, split_answer
from .questions import Question

if TYPE_CHECKING:
    from ...runtime.runtime import Runtime

Progress = Callable[[int, int], None]
"""Called with the number of questions done and of all."""


def sample_answers(
    model: Path, questions: Sequence[Question], rounds: Rounds, path: Path, *, seed: int, progress: Progress
) -> list[list[Worked]]:
    """For each question the answers that have a rationale and an end; what is in ``path`` is not asked again.

    Each question has a seed of its own, so an interruption changes nothing. TrainingError if the model cannot answer.
    """
    done = _read(path, len(questions))
    missing = [idx for idx in range(len(questions)) if idx not in done]
    if missing:
        progress(len(done), len(questions))
        with path.open("a", encoding="utf-8") as file:
            asyncio.run(_ask(model, questions, missing, rounds, file, done, seed, progress))
    return [[_worked(answer) for answer in done[idx]] for idx in range(len(questions))]


Done = dict[int, list[dict[str, str]]]


def _read(path: Path, count: int) -> Done:
    """What was written whole; a last line that was cut off is removed from the file."""
    if not path.is_file():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
        return {line["question"]: line["answers"] for line in lines if 0 <= line["question"] < count}
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} is damaged: delete it, and the answers are sampled again") from error


async def _ask(
    model: Path,
    questions: Sequence[Question],
    missing: Sequence[int],
    rounds: Rounds,
    file: TextIO,
    done: Done,
    seed: int,
    progress: Progress,
) -> None:
    runtime = await asyncio.to_thread(_open, model, any(question.is_apart for question in questions))
    limit = asyncio.Semaphore(max(1, _PARALLEL // rounds.samples))

    async def ask(idx: int) -> None:
        async with limit:
            answers = await _answers(runtime, questions[idx], rounds, seed * 1_000_003 + idx)
        done[idx] = answers
        _append(file, {"question": idx, "answers": answers})
        progress(len(done), len(questions))

    try:
        async with asyncio.TaskGroup() as tasks:
            for idx in missing:
                tasks.create_task(ask(idx))
    except* TapsterError as group:
        raise TrainingError(f"{model} cannot answer a question: {group.exceptions[0]}") from group
    finally:
        runtime.close()


_PARALLEL = 16
"""Sequences at a time: what engines hold by default."""


def _open(model: Path, is_apart: bool) -> Runtime:
    """Memphis-CoT has a chat template of its own for rationales that stand apart."""
    from ...runtime.chat.builtin import builtin_source
    from ...runtime.models import find_model
    from ...runtime.runtime import Runtime

    profile = find_model(str(model), progress=False)
    if is_apart and profile.chat_templates.get("default") == builtin_source("memphis"):
        profile = find_model(str(model), chat_template="memphis-rationale", progress=False)
    return Runtime.load(profile)


async def _answers(runtime: Runtime, question: Question, rounds: Rounds, seed: int) -> list[dict[str, str]]:
    """Those with a rationale and an answer that ended by themselves; none where the question fills the context."""
    from ...runtime.sampling import MAX_SEED, SamplingParams

    params = SamplingParams(
        max_tokens=rounds.max_tokens, temperature=rounds.temperature, top_p=rounds.top_p, seed=seed % MAX_SEED
    )
    try:
        streams = runtime.chat(list(question.messages), params, n=rounds.samples)
    except ContextOverflow:
        return []
    found = []
    for answer in await asyncio.gather(*(stream.collect() for stream in streams)):
        worked = split_answer(answer.content, answer.reasoning) if answer.finish_reason == "stop" else None
        if worked is not None:
            found.append({"rationale": worked.rationale, "answer": worked.answer, "text": worked.text})
    return found


def _worked(answer: dict[str, Any]) -> Worked:
    return Worked(answer["rationale"], answer["answer"], answer["text"])


def _append(file: TextIO, line: dict[str, Any]) -> None:
    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    file.flush()
    os.fsync(file.fileno())
