"""Plain fine-tuning of a stage's student on the stage's rows, for as many steps: what its own loss is measured by."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from ..recipe.schema import Curriculum, Objective, Stage
from ..report.compare import plain_name, verdict
from .together import is_first, wait_for_all

if TYPE_CHECKING:
    from ..data.load import StageData
    from ..teacher.base import Teacher
    from .one_stage import OneStage
    from .stage import Outcome


def plain_stage(stage: Stage) -> Stage:
    """``stage`` with cross-entropy alone, in random order. Its own terms keep a weight of zero, so that they are
    measured on the held-out rows of both."""
    own = [one.model_copy(update={"weight": 0.0}) for one in stage.objective if one.term != "cross_entropy"]
    data = stage.data.model_copy(update={"curriculum": Curriculum()})
    objective = [Objective(term="cross_entropy"), *own]
    return stage.model_copy(
        update={"objective": objective, "data": data, "neftune": None, "save_steps": None, "baseline": None}
    )


def compared(work: OneStage, outcome: Outcome, teacher: Teacher | None, data: StageData) -> Outcome:
    """``outcome`` with that of plain fine-tuning, which leaves nothing but its numbers."""
    stage, folder = work.stage, work.folder / "baseline"
    work.run.say(f"{stage.name}: now plain fine-tuning for {outcome.steps} steps, to compare with")
    silent = replace(data, notes=[])
    plain = work.fit(work.student(), teacher, silent, plain_stage(stage), folder, plain_name(stage.name), None)
    if not plain.is_finished:
        return replace(outcome, is_finished=False)
    if is_first():
        shutil.rmtree(folder, ignore_errors=True)
    wait_for_all()
    if said := verdict(outcome.after, plain.after):
        work.run.say(f"{stage.name}: {said}")
    return replace(outcome, plain=plain.after)
