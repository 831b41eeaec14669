"""The steps of a pipeline one after the other, as far as they are needed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...runtime.errors import ConfigError
from ...training.loop.state import check_out
from .convert import ConvertStep
from .proofs import Proved, proved
from .prove import ProveStep
from .step import Job, Name, Step, Verdict
from .teacher import TeacherStep
from .train import TrainStep

if TYPE_CHECKING:
    from ...converters.targets import Target


@dataclass
class Done:
    """How a step went: what was decided, and its seconds if it ran."""

    name: Name
    verdict: Verdict
    seconds: float | None = None


@dataclass
class Pipeline:
    """``done`` grows as steps end."""

    job: Job
    done: list[Done] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._train, self._convert = TrainStep(self.job), ConvertStep(self.job)
        self.steps: Sequence[Step] = (
            TeacherStep(self.job),
            self._train,
            self._convert,
            ProveStep(self._convert),
        )
        _require_own_folder(self.job)

    def plan(self) -> dict[str, Verdict]:
        """What will be done. A step whose own inputs hold is planned to run after one that runs; whether it has to is
        seen then."""
        plan: dict[str, Verdict] = {}
        before: Name | None = None
        for step in self.steps:
            verdict = step.check()
            if before is not None and verdict.holds:
                why = [*verdict.why, f"{verdict.holds} unless {before} makes the same again"]
                verdict = replace(verdict, status="will run", why=why)
            plan[step.name] = verdict
            before = step.name if verdict.runs else before
        return plan

    def run(self) -> None:
        """Raises what ended a step early: all that it finished is kept."""
        if self._train.check().runs:
            self._train.let_go()
        for step in self.steps:
            verdict, started = step.check(), time.monotonic()
            if step.name == "prove" and self.done[-1].verdict.runs:  # the artifacts that are new
                verdict = Verdict("will run", ["with each artifact"], verdict.about)
            if verdict.runs:
                self._run(step)
            self.done.append(Done(step.name, verdict, time.monotonic() - started if verdict.runs else None))

    def _run(self, step: Step) -> None:
        try:
            step.run()
        except KeyboardInterrupt:
            self.job.display.say(f"{step.name}: stopped; tapster pipeline {self.job.out} goes on")
            raise

    def artifacts(self) -> "list[tuple[Target, Proved]]":
        """All of them, when all is done."""
        return [(one.target, proved(one.path)) for one in self._convert.plan()]


def _require_own_folder(job: Job) -> None:
    """ConfigError where the folder is another recipe's, or no run's."""
    check_out(job.out)
    found, wanted = _name_in(job.out / "recipe.toml"), job.recipe.name
    if found not in (None, wanted) and "train" not in job.again:
        raise ConfigError(
            f"{job.out} is of the recipe {found}, and this is {wanted}: give another --out, or begin anew with --force"
        )


def _name_in(path: Path) -> str | None:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8")).get("name")
    except (OSError, ValueError):
        return None
