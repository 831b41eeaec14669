"""A whole recipe: its stages one after the other, from where an earlier attempt stopped, to a model's folder."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.errors import ModelError
from ..disk import or_a_clear_end_of_files
from ..recipe.resolved import to_toml
from ..recipe.schema import Recipe, Stage
from ..report.display import Display, Silent
from ..student.open import FOLDER as STUDENT
from .checkpoints import last_checkpoint
from .state import State, alone_in, clear, dependencies, stage_names
from .together import begin_together, idle_devices, is_first, or_a_clear_end, wait_for_all

if TYPE_CHECKING:
    from ..teacher.progress import Price

ResolveModel = Callable[[str], Path]


@dataclass(frozen=True)
class Result:
    """``model`` is the folder of the result; ``stages`` say how each went: ``steps``, and ``before`` and ``after``, the
    values on held-out rows, and where there are such ``plain``, those of plain fine-tuning, and ``rounds``."""

    out: Path
    model: Path
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


def train(
    recipe: Recipe,
    out: Path,
    *,
    resolve_model: ResolveModel,
    display: Display | None = None,
    force: bool = False,
    price: Price | None = None,
) -> Result:
    """Train ``recipe`` into the folder ``out``, going on where it was left.

    ``resolve_model`` turns what a recipe calls a model into a Hugging Face folder. Raises ConfigError, ModelError and
    TrainingError; KeyboardInterrupt when a signal came, after a checkpoint was saved.
    """
    from .quiet import quiet_libraries

    with quiet_libraries(), _clear_ends(out), alone_in(out):
        run = Run(recipe, out, resolve_model, display or Silent(), force=force, price=price)
        run.all_stages()
        return run.finish()


def prepare_teacher(
    recipe: Recipe,
    out: Path,
    *,
    resolve_model: ResolveModel,
    display: Display | None = None,
    force: bool = False,
    price: Price | None = None,
) -> None:
    """Make or complete the teacher's cache, which ``train`` would do before each stage, and train nothing."""
    from .quiet import quiet_libraries

    with quiet_libraries(), _clear_ends(out), alone_in(out):
        Run(recipe, out, resolve_model, display or Silent(), force=force, price=price).prepare()


@contextmanager
def _clear_ends(out: Path) -> Iterator[None]:
    """Raises TrainingError for files that cannot be read or written, and where another process has ended."""
    with or_a_clear_end_of_files(f"go on with {out}"), or_a_clear_end():
        yield


class Run:
    """What the stages of a run share."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        resolve_model: ResolveModel,
        display: Display,
        *,
        force: bool,
        price: Price | None = None,
    ) -> None:
        begin_together()
        self.recipe, self.out, self.resolve_model, self.display = recipe, out, resolve_model, display
        self.price = price
        self._again = f"tapster train {out}" if force else "the same command"
        if is_first() and force:
            clear(out)
        wait_for_all()
        self.state = State(out)
        self.depends = dependencies(recipe)
        self.state.check(self.depends)
        wait_for_all()
        if is_first():
            self.state.save()
            if not self.state.has_begun:  # a student may be there that was made with other settings
                shutil.rmtree(out / STUDENT, ignore_errors=True)
            (out / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
        self.teacher_identity: dict[str, Any] | None = None

    def say(self, line: str) -> None:
        if is_first():
            self.display.say(line)

    def prepare(self) -> None:
        from .one_stage import OneStage

        for number, (name, stage) in enumerate(zip(self.depends, self.recipe.stages, strict=True)):
            if not self.state.is_done(name):
                OneStage(self, number, name, stage).prepare()
                gc.collect()

    def all_stages(self) -> None:
        if idle := idle_devices():
            every = f"torchrun --nproc-per-node {idle + 1} -m tapster.server.cli train"
            self.say(f"one of {idle + 1} GPUs is used; `{every} …` uses all")
        for number, (name, stage) in enumerate(zip(self.depends, self.recipe.stages, strict=True)):
            if self.state.is_done(name) or last_checkpoint(self.folder(name)):
                self.state.check_sources(name)
            if self.state.is_done(name):
                self.say(f"{stage.name}: done before")
            else:
                self._stage(number, name, stage)
            gc.collect()

    def _stage(self, number: int, name: str, stage: Stage) -> None:
        """Raises KeyboardInterrupt where a signal ended it."""
        from .one_stage import OneStage

        self.teacher_identity = None
        if is_first():
            self.state.begin(name, self.depends[name])
        outcome = OneStage(self, number, name, stage).train()
        if not outcome.is_finished:
            self.say(
                f"{stage.name}: stopped after step {outcome.steps}; a checkpoint is saved, and {self._again} goes on"
            )
            raise KeyboardInterrupt
        if is_first():
            result: dict[str, Any] = {"steps": outcome.steps, "before": outcome.before, "after": outcome.after}
            if outcome.plain:
                result["plain"] = outcome.plain
            if outcome.rounds:
                result["rounds"] = outcome.rounds
            self.state.finish(name, result | {"teacher": self.teacher_identity})
            for checkpoint in self.folder(name).glob("checkpoint-*"):
                shutil.rmtree(checkpoint)
        wait_for_all()
        self.state.reload()

    def use_data(self, name: str, sources: list[dict[str, Any]], rows: str | None = None) -> None:
        """Note what a stage is trained on. Raises ConfigError where its checkpoints come from other ``rows``."""
        if last_checkpoint(self.folder(name)):
            self.state.check_rows(name, rows)
        if is_first():
            self.state.note_data(name, sources, rows)
        wait_for_all()

    def folder(self, name: str) -> Path:
        return self.out / "stages" / name

    def before(self, number: int) -> Path | None:
        """The result of the stage before, None for the first."""
        return self.folder(stage_names(self.recipe)[number - 1]) / "model" if number else None

    def finish(self) -> Result:
        """The model's folder with its card, and the picture."""
        model = self.out / "model"
        results = {name: self.state.result(name) for name in self.depends}
        if is_first():
            self._write(model, results)
        wait_for_all()
        return Result(self.out, model, results)

    def _write(self, model: Path, results: dict[str, dict[str, Any]]) -> None:
        from ..report.card import write_card
        from ..report.metrics import FILE as METRICS
        from ..report.picture import draw_losses
        from .student import open_stage_student, save_stage_student

        last = self.folder(list(self.depends)[-1]) / "model"
        if not (model / "config.json").is_file():
            student = open_stage_student(last, self.recipe)
            save_stage_student(student, model, self.recipe.student.dtype)
        picture = self.out / "loss.png"
        drawn = draw_losses(self.out / METRICS, picture)
        write_card(
            model,
            self.recipe,
            metrics=self.out / METRICS,
            sources=[source for name in results for source in self.state.sources(name)],
            teacher=next((result["teacher"] for result in results.values() if result.get("teacher")), None),
            student=self._origin(),
            picture=picture if drawn else None,
            rounds=[one for result in results.values() for one in result.get("rounds", [])],
        )

    def _origin(self) -> Path | None:
        """The folder of the model that the student began as, None where there is none any more."""
        name = self.recipe.student.model
        if name is None:
            return None
        folder = Path(name).expanduser()
        if (folder / "config.json").is_file():
            return folder
        with suppress(ModelError):
            return self.resolve_model(name)
        return None
