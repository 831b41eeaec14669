"""The first step: what the teacher has to say, kept in its cache."""

import time
from pathlib import Path

from ...training.recipe.needs import fills_cache, uses_teacher
from .contents import folder_files, model_digest
from .inputs import Inputs, differences, flat
from .sources import source_digests
from .step import Job, Name, Verdict

_BY_THE_WAY = {"concurrency", "endpoint", "max_rows", "cache", "dtype"}
"""Keys of the teacher that do not make it another one."""


class TeacherStep:
    name: Name = "teacher"

    def __init__(self, job: Job) -> None:
        self._job = job
        self._table = job.recipe.teacher

    def check(self) -> Verdict:
        recipe, record = self._job.recipe, self._job.record
        if self._table is None or not fills_cache(recipe):
            return Verdict("not needed", [self._why_not()])
        entry = record.entry(self.name)
        if entry is None:
            return Verdict("will run", ["not asked yet"], str(self.folder))
        why = ["it was asked for"] if self.name in self._job.again else []
        why += differences(entry.inputs, self._inputs())
        if gone := record.missing(self.name):
            why.append(f"{gone} is gone")
        if not entry.done:
            why.append("it was not finished")
        return Verdict("will run" if why else "up to date", why, str(self.folder), "" if why else str(self.folder))

    def run(self) -> None:
        from ...training.loop.run import prepare_teacher

        job, started = self._job, time.monotonic()
        self._put_aside()
        inputs = self._inputs()
        job.record.begin(self.name, inputs)
        prepare_teacher(job.recipe, job.out, resolve_model=job.resolve_model, display=job.display, price=job.price)
        outputs = [] if self._is_elsewhere else [self.folder / name for name in folder_files(self.folder)]
        job.record.finish(self.name, inputs, outputs, time.monotonic() - started)

    @property
    def folder(self) -> Path:
        """Where the cache is."""
        assert self._table is not None
        return Path(self._table.cache) if self._table.cache else self._job.out / "teacher"

    @property
    def _is_elsewhere(self) -> bool:
        return self._table is not None and self._table.cache is not None

    def _why_not(self) -> str:
        if self._table is None:
            return "the recipe has no teacher"
        if self._table.kind == "online":
            return "the teacher is in memory beside the student"
        return "the cache was brought along" if self._table.cache else "no stage uses the teacher"

    def _inputs(self) -> Inputs:
        """The teacher, and what it is asked. Of a cache of logits also the student: its tokens are what is asked."""
        recipe, inputs = self._job.recipe, self._identity()
        assert self._table is not None
        if self._table.kind == "logit-cache":
            inputs |= flat(recipe.student.model_dump(), "student")
        inputs["teacher.max_rows"] = self._table.max_rows
        for stage in recipe.stages:
            if uses_teacher(stage, recipe):
                values = stage.model_dump(include={"data": True, "sequence_length": True, "seed": True})
                values["data"].pop("curriculum")
                inputs |= flat(values, f"stages.{stage.name}")
                inputs |= source_digests(stage)
        return inputs

    def _identity(self) -> Inputs:
        assert self._table is not None
        digest = model_digest(None if self._table.endpoint else self._table.model)
        model: Inputs = {f"the model {self._table.model}": digest} if digest else {}
        return flat(self._table.model_dump(exclude=_BY_THE_WAY), "teacher") | model

    def _put_aside(self) -> None:
        """Answers of another teacher are dear: they are kept under another name."""
        entry = self._job.record.entry(self.name)
        if entry is None or self._is_elsewhere or not self.folder.is_dir():
            return
        mine = ("teacher.", "the model ")
        before = {name: value for name, value in entry.inputs.items() if name.startswith(mine)}
        before.pop("teacher.max_rows", None)
        if not differences(before, self._identity()):
            return
        number = next(n for n in range(1, 1000) if not self.folder.with_name(f"teacher-{n}").exists())
        aside = self.folder.with_name(f"teacher-{number}")
        self.folder.rename(aside)
        self._job.display.say(f"the answers of the teacher of before are kept in {aside}")
