"""A stage of rounds: the student asks itself, is checked, and is trained on what came out."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.load import load_examples, load_rows
from ..rounds.questions import questions_of
from ..rounds.run import run_rounds
from .stage import Outcome
from .student import dtype_of, open_stage_student, save_stage_student
from .together import first_alone, is_first, wait_for_all

if TYPE_CHECKING:
    from ..report.display import Display
    from .one_stage import OneStage


def teach_itself(work: OneStage) -> Outcome:
    """Leaves the last round's model in the stage's folder."""
    stage, run, folder = work.stage, work.run, work.folder
    assert stage.rounds is not None, "a stage of rounds"
    examples = first_alone(lambda: load_examples(stage, work.recipe, run.out))
    run.use_data(work.name, examples.fingerprints)
    for note in examples.notes:
        run.say(note)
    conversations = (row["messages"] for row in examples.train if row["messages"])  # type: ignore[index, call-overload]  rows are tables
    questions, left_out = questions_of(conversations, stage.rounds.checker, stage.rounds.max_questions)
    run.say(f"{stage.name}: {len(questions)} questions in each round, {stage.rounds.samples} answers to each")
    if left_out:
        run.say(f"{stage.name}: {left_out} examples left out, because their right answer cannot be checked")
    taught = run_rounds(
        _start(work),
        folder,
        questions,
        stage.rounds,
        lambda model, pairs, trained: _train_on_pairs(work, model, pairs, trained),
        seed=stage.seed,
        say=run.say,
        progress=_Asking(run.display, f"{stage.name}: asking"),
        is_main=is_first(),
        wait=wait_for_all,
    )
    if taught.is_finished and is_first():
        shutil.copytree(taught.model, folder / "model", dirs_exist_ok=True)
    wait_for_all()
    rounds = [asdict(one) for one in taught.rounds]
    return Outcome(taught.is_finished, len(rounds), before={}, after={}, rounds=rounds)


class _Asking:
    """A bar for each round, whose steps are questions."""

    def __init__(self, display: Display, name: str) -> None:
        self._display, self._name = display, name
        self._is_shown = False

    def __call__(self, done: int, total: int) -> None:
        if not self._is_shown:
            self._display.begin(self._name, total, done)
        self._display.step(done)
        self._is_shown = done < total
        if not self._is_shown:
            self._display.end()


def _start(work: OneStage) -> Path:
    """The folder of the model that the first round begins with."""
    before = work.run.before(work.number)
    if before is not None:
        return before
    start = work.folder / "start"
    if not (start / "config.json").is_file():
        student = work.student()
        if is_first():
            save_stage_student(student, start, dtype_of(student.model))
    wait_for_all()
    return start


def _train_on_pairs(work: OneStage, model: Path, pairs: Path, trained: Path) -> bool:
    """An ordinary stage over the ranked answers; nothing is held out, which would tear pairs apart."""
    data = work.stage.data.model_copy(update={"train": [str(pairs)], "eval": [], "eval_rows": 0, "format": "auto"})
    stage = work.stage.model_copy(update={"data": data, "rounds": None})
    student = open_stage_student(model, work.recipe)
    rows = first_alone(
        lambda: load_rows(
            stage,
            work.recipe,
            student.tokenizer,
            work.run.out,
            chat_template=student.chat_template,
            needs_columns=("group", "rank"),
        )
    )
    folder = pairs.parent / "training"
    outcome = work.fit(student, None, rows, stage, folder, f"{stage.name}-{pairs.parent.name}", trained, origin=model)
    if outcome.is_finished and is_first():
        shutil.rmtree(folder, ignore_errors=True)
    wait_for_all()
    return outcome.is_finished
