"""Rounds of self-teaching, after Memphis-CoT: sample, check, rank, merge.

    folder/round-1/answers.jsonl   what the model said, a line for each question
                   pairs.jsonl     right and wrong answers side by side, as training data
                   trained/        the model after an epoch on them
                   model/          that model merged with the one before: where the next round begins
                   round.json      what happened; written last, so a round with it is done

Every round goes on where it was interrupted.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...runtime.errors import TrainingError
from ..merging.merge import merge_folders
from ..recipe.schema import Rounds
from .answers import is_right
from .pairs import pair_up, write_pairs
from .questions import Question, fingerprint
from .sample import Progress, sample_answers

Train = Callable[[Path, Path, Path], bool]
"""``train(model, pairs, trained)``: train the model in the folder ``model`` on the rows of the file ``pairs`` (in their
order: the two of a pair are neighbours) and write the folder ``trained``, whole or not at all. In float32: an epoch at
5e-7 moves weights by less than bfloat16 can hold. False where the training was interrupted."""


@dataclass(frozen=True, slots=True)
class Round:
    """What came of a round: questions asked, answers with a rationale, how many of them right, and pairs made."""

    number: int
    questions: int
    answers: int
    right: int
    pairs: int


@dataclass(frozen=True, slots=True)
class Taught:
    """The last model, and the rounds that led to it; ``is_finished`` is False after an interruption."""

    model: Path
    rounds: tuple[Round, ...]
    is_finished: bool


def run_rounds(
    start: Path,
    folder: Path,
    questions: Sequence[Question],
    rounds: Rounds,
    train: Train,
    *,
    seed: int,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda done, all_questions: None,
    is_main: bool = True,
    wait: Callable[[], None] = lambda: None,
) -> Taught:
    """Teach the model in ``start``. In a run of several processes all of them call this: only the main one samples and
    merges, and ``wait`` is a barrier. TrainingError where nothing can be asked, or where ``folder`` is of other
    questions or settings."""
    if not questions:
        raise TrainingError(
            f"there is no question whose answer the checker {rounds.checker!r} can read: give the stage other data, or "
            f"another rounds.checker"
        )
    model, history = start, []
    for number in range(1, rounds.count + 1):
        place = folder / f"round-{number}"
        if is_main:
            _begin(place, questions, rounds, seed)
            _sample(model, place, questions, rounds, seed + number, progress)
        wait()
        if not _train(model, place, train, is_main):
            return Taught(model, tuple(history), is_finished=False)
        wait()
        if is_main and not (place / "round.json").is_file():
            _finish(model, place, number, rounds)
        wait()
        history.append(Round(**json.loads((place / "round.json").read_text())))
        say(_summary(history[-1]))
        model = place / "model" if history[-1].pairs else model
    return Taught(model, tuple(history), is_finished=True)


def _begin(place: Path, questions: Sequence[Question], rounds: Rounds, seed: int) -> None:
    """Make the folder, or make sure that it is of this very run."""
    settings = rounds.model_dump(exclude={"count"})
    asked = json.loads(json.dumps({"questions": fingerprint(questions), "settings": settings, "seed": seed}))
    path = place / "asked.json"
    if not path.is_file():
        place.mkdir(parents=True, exist_ok=True)
        _write(path, asked)
    elif json.loads(path.read_text()) != asked:
        raise TrainingError(
            f"{place} was made with other questions or other settings: choose another --out, or --force"
        )


def _sample(
    model: Path, place: Path, questions: Sequence[Question], rounds: Rounds, seed: int, progress: Progress
) -> None:
    if (place / "sampled.json").is_file():
        return
    answers = sample_answers(model, questions, rounds, place / "answers.jsonl", seed=seed, progress=progress)
    both = list(zip(questions, answers, strict=True))
    pairs = [(question, pair) for question, found in both for pair in pair_up(found, question.gold, question.checker)]
    right = sum(
        is_right(answer.answer, question.gold, question.checker) for question, found in both for answer in found
    )
    write_pairs(place / "pairs.jsonl", pairs, seed)
    counts = {"questions": len(questions), "answers": sum(map(len, answers)), "right": right, "pairs": len(pairs)}
    _write(place / "sampled.json", counts)


def _train(model: Path, place: Path, train: Train, is_main: bool) -> bool:
    """Whether the round has what it was to make; nothing, where there are no pairs."""
    if (place / "round.json").is_file() or (place / "trained").is_dir() or not _counts(place)["pairs"]:
        return True
    return train(model, place / "pairs.jsonl", place / "trained")


def _finish(model: Path, place: Path, number: int, rounds: Rounds) -> None:
    counts = _counts(place)
    if counts["pairs"]:
        if rounds.merge == "none":
            _copy(place / "trained", place / "model")
        else:
            merge_folders(model, place / "trained", place / "model", rounds.merge, rounds.weight_of_new)
    _write(place / "round.json", asdict(Round(number=number, **counts)))
    shutil.rmtree(place / "trained", ignore_errors=True)
    if counts["pairs"] and place.parent in model.parents:
        shutil.rmtree(model, ignore_errors=True)  # of the round before, which nothing needs any more


def _counts(place: Path) -> dict[str, int]:
    return json.loads((place / "sampled.json").read_text())


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def _summary(round_: Round) -> str:
    text = (
        f"Round {round_.number}: {round_.questions} questions, {round_.answers} answers with a rationale, "
        f"{round_.right} of them right, {round_.pairs} pairs"
    )
    return text if round_.pairs else f"{text}: nothing to learn from, so the model stays as it is"


def _write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all."""
    growing = path.with_name(f".{path.name}.growing")
    with growing.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    growing.replace(path)
