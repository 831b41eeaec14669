"""The second step: the stages of the recipe. Of those that were trained before, the ones that still hold are kept."""

import shutil
import time
from functools import cached_property
from typing import Any

from ...training.data.sources import is_changed
from ...training.loop.state import FILE as STATE
from ...training.loop.state import State, clear, dependencies
from ...training.recipe.needs import uses_teacher
from ...training.recipe.schema import Stage
from .contents import folder_digest, folder_files, model_digest
from .inputs import Inputs, changed_settings, differences
from .step import Job, Name, Verdict


class TrainStep:
    name: Name = "train"

    def __init__(self, job: Job) -> None:
        self._job = job
        self._depends = dependencies(job.recipe)
        self._is_cleared = False

    def check(self) -> Verdict:
        job, state = self._job, State(self._job.out)
        names, about = list(self._depends), str(job.model)
        if self.name in job.again:
            return Verdict("will run", ["it was asked for"], about)
        if why := self._kept(state)[1]:
            return Verdict("will run", why, about)
        if todo := [name for name in names if not state.is_done(name)]:
            return Verdict("will run", [_progress(job.recipe.stages[names.index(todo[0])], state, todo[0])], about)
        if why := self._unfinished():
            return Verdict("will run", [why], about)
        return Verdict("up to date", [], about, about)

    def run(self) -> None:
        from ...training.loop.run import train

        job, started = self._job, time.monotonic()
        self.let_go()
        if self._unfinished():
            shutil.rmtree(job.model, ignore_errors=True)  # written again from the last stage's result
        job.record.begin(self.name, self._inputs)
        train(job.recipe, job.out, resolve_model=job.resolve_model, display=job.display, price=job.price)
        self.__dict__.pop("_inputs")  # training may have added to the teacher's cache
        outputs = [job.model / name for name in folder_files(job.model)]
        job.record.finish(self.name, self._inputs, outputs, time.monotonic() - started)

    def let_go(self) -> None:
        """Forget the stages that no longer hold, and what came of them; all of them where that was asked for."""
        if self.name in self._job.again and not self._is_cleared:
            self._is_cleared = True
            clear(self._job.out)
        if not (self._job.out / STATE).is_file():
            return
        state = State(self._job.out)
        kept, why = self._kept(state)
        if why:
            state.keep(kept)
            if not kept:  # a student that was made for them
                shutil.rmtree(self._job.out / "student", ignore_errors=True)

    def _unfinished(self) -> str | None:
        """What is wrong with the model that stands at the end."""
        job, entry = self._job, self._job.record.entry(self.name)
        if gone := job.record.missing(self.name):
            return f"{job.out / gone} is gone"
        if not (job.model / "config.json").is_file():
            return f"{job.model} is gone"
        return "it was not finished" if entry and not entry.done else None

    def _kept(self, state: State) -> tuple[list[str], list[str]]:
        """The stages whose work still holds, and why the others' does not (nothing when they were not begun)."""
        names = list(self._depends)
        for idx, name in enumerate(names):
            if state.depends(name) is None:
                return names[:idx], []
            if why := self._why_not(state, idx, name):
                return names[:idx], why
        return names, []

    def _why_not(self, state: State, idx: int, name: str) -> list[str]:
        stage = self._job.recipe.stages[idx]
        why = differences(*self._recorded(stage))
        if state.depends(name) != self._depends[name]:
            why = [*changed_settings(self._job.out, self._job.recipe, stage), *why] or [
                f"stages.{stage.name} has changed"
            ]
        sources = [source for source in state.sources(name) if is_changed(source)]
        why += [f"{source['source']} has changed" for source in sources]
        folder = self._job.out / "stages" / name
        is_needed = not (self._job.model / "config.json").is_file()
        if is_needed and state.is_done(name) and not (folder / "model" / "config.json").is_file():
            why.append(f"{folder / 'model'} is gone")
        return why

    def _recorded(self, stage: Stage) -> tuple[Inputs, Inputs]:
        """The digests that matter to a stage: before, where they are known, and now."""
        entry = self._job.record.entry(self.name)
        before = entry.inputs if entry else {}
        mine = {name: value for name, value in self._inputs.items() if _is_of(name, stage) and name in before}
        return {name: before[name] for name in mine}, mine

    @cached_property
    def _inputs(self) -> Inputs:
        """The models, and what the teacher has said to each stage. Settings and data are in the run's own state."""
        recipe, found = self._job.recipe, {}
        if digest := model_digest(recipe.student.model):
            found[f"the model {recipe.student.model}"] = digest
        for stage in recipe.stages:
            if uses_teacher(stage, recipe) and (digest := self._teacher_digest()):
                found[f"the teacher of {stage.name}"] = digest
        return found

    def _teacher_digest(self) -> str | None:
        from .teacher import TeacherStep

        table = self._job.recipe.teacher
        assert table is not None
        if table.kind == "online":
            return model_digest(table.model)
        return folder_digest(TeacherStep(self._job).folder)


def _is_of(name: str, stage: Stage) -> bool:
    return name.startswith("the model ") or name == f"the teacher of {stage.name}"


def _progress(stage: Stage, state: State, name: str) -> str:
    return f"the stage {stage.name} was begun" if state.depends(name) else f"the stage {stage.name} is to be trained"


def trained(job: Job) -> list[dict[str, Any]]:
    """How each stage went, as the run's state has it."""
    state = State(job.out)
    return [
        {"stage": stage.name, **state.result(name)}
        for name, stage in zip(dependencies(job.recipe), job.recipe.stages, strict=True)
        if state.is_done(name)
    ]
