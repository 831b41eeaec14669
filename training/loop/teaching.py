"""A stage of rounds: the student asks itself, is checked, and is trained on what came out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.load import load_examples, load_rows
from ..rounds.questions import questions_of
from ..rounds.run import run_rounds
from .stage import Outcome
from .student import dtype_of, open_stage_student, save_stage_student
from .together import is_first, wait_for_all

if TYPE_CHECKING:
    from .one_stage import OneStage


def teach_itself(work: OneStage) -> Outcome:
    """Leaves the last round's model in the stage's folder."""
    stage, run, folder = work.stage, work.run, work.folder
    assert stage.rounds is not None, "a stage of rounds"
    examples = load_examples(stage, work.recipe, run.out)
    run.sources = examples.fingerprints
    conversations = (row["messages"] for row in examples.train if row["messages"])  # type: ignore[index, call-overload]
    questions = questions_of(conversations, stage.rounds.checker, stage.rounds.max_questions)
    taught = run_rounds(
        _start(work),
        folder,
        questions,
        stage.rounds,
        lambda model, pairs, trained: _train_on_pairs(work, model, pairs, trained),
        seed=stage.seed,
        say=run.say,
        is_main=is_first(),
        wait=wait_for_all,
    )
    if taught.is_finished and is_first():
        shutil.copytree(taught.model, folder / "model", dirs_exist_ok=True)
    wait_for_all()
    after = {"rounds": float(len(taught.rounds)), "pairs": float(sum(one.pairs for one in taught.rounds))}
    return Outcome(taught.is_finished, len(taught.rounds), before={}, after=after)


def _start(work: OneStage) -> Path:
    """The folder of the model that the first round begins with."""
    before = work.run.before(work.number)
    if before is not None:
        return before
    start = work.folder / "start"
    if is_first() and not (start / "config.json").is_file():
        student = work.student()
        save_stage_student(student, start, dtype_of(student.model))
    wait_for_all()
    return start


def _train_on_pairs(work: OneStage, model: Path, pairs: Path, trained: Path) -> bool:
    """An ordinary stage over the ranked answers; nothing is held out, which would tear pairs apart."""
    data = work.stage.data.model_copy(update={"train": [str(pairs)], "eval": [], "eval_rows": 0, "format": "auto"})
    stage = work.stage.model_copy(update={"data": data, "rounds": None})
    student = open_stage_student(model, work.recipe)
    rows = load_rows(
        stage,
        work.recipe,
        student.tokenizer,
        work.run.out,
        chat_template=student.chat_template,
        needs_columns=("group", "rank"),
    )
    folder = pairs.parent / "training"
    outcome = work.fit(student, None, rows, stage, folder, f"{stage.name}-{pairs.parent.name}", trained)
    if outcome.is_finished and is_first():
        shutil.rmtree(folder, ignore_errors=True)
    wait_for_all()
    return outcome.is_finished
