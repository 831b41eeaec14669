"""A stage of a recipe: its student, teacher and rows are brought together, trained, and the result is saved."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..data.load import StageData, load_examples, load_rows
from ..objectives.options import Needs
from ..objectives.registry import needs_of
from ..report.metrics import Metrics
from ..student.lora import merged, with_lora
from ..student.open import OpenStudent, open_student
from ..teacher.open import open_teacher
from .stage import Outcome, train_rows
from .student import dtype_of, first_student, open_stage_student, save_stage_student
from .together import is_first, wait_for_all

if TYPE_CHECKING:
    from pathlib import Path

    from ..recipe.schema import Stage
    from ..teacher.base import Teacher
    from .run import Run

OF_THE_TEXT_CACHE = frozenset({"output_entropy", "self_consistency", "difficulty_score"})


class OneStage:
    def __init__(self, run: Run, number: int, name: str, stage: Stage) -> None:
        self.run, self.number, self.name, self.stage = run, number, name, stage
        self.recipe = run.recipe
        self.folder = run.folder(name)
        self.needs = Needs()
        for objective in stage.objective:
            self.needs |= needs_of(objective)

    def train(self) -> Outcome:
        if self.stage.rounds is not None:
            from .teaching import teach_itself

            return teach_itself(self)
        student = self.student()
        teacher = self._teacher(student)
        try:
            data = self._rows(student, teacher)
            return self.fit(student, teacher, data, self.stage, self.folder, self.stage.name, self.folder / "model")
        finally:
            if teacher is not None:
                teacher.close()

    def fit(
        self,
        student: OpenStudent,
        teacher: Teacher | None,
        data: StageData,
        stage: Stage,
        folder: Path,
        name: str,
        result: Path,
    ) -> Outcome:
        """Train, with checkpoints in ``folder``, and save the trained student as ``result``."""
        for note in data.notes:
            self.run.say(note)
        model: Any = with_lora(student.model, stage.lora) if stage.lora else student.model
        outcome = train_rows(
            model,
            stage,
            self.recipe.student,
            data.train,
            folder=folder,
            held_out=data.eval,
            teacher=teacher,
            metrics=Metrics(self.run.out, self.run.display) if is_first() else None,
            name=name,
            pad_id=_pad_id(student),
            say=self.run.say,
        )
        if outcome.is_finished:
            whole = merged(model) if stage.lora else model
            if is_first():
                save_stage_student(replace(student, model=whole), result, dtype_of(whole))
            wait_for_all()
        return outcome

    def student(self) -> OpenStudent:
        """The first process makes what has to be made; the others read it."""
        before = self.run.before(self.number)
        if before is not None:
            return open_stage_student(before, self.recipe)
        return _first_alone(lambda: first_student(self.recipe, self.run.resolve_model, self.run.out))

    def _teacher(self, student: OpenStudent) -> Teacher | None:
        table = self.recipe.teacher
        if table is None or not self._uses(table.kind):
            return None
        origin: Any = student.model
        if table.kind == "online" and table.model == "student":
            origin = open_student(self.recipe, self.run.resolve_model, self.run.out).model
        teacher = open_teacher(
            table,
            self.run.out / "teacher",
            resolve_model=self.run.resolve_model,
            student=origin,
            tokenizer=student.tokenizer,
            with_states=self.needs.states,
            say=self.run.say,
        )
        self.run.teacher_identity = teacher.identity()
        return teacher

    def _uses(self, kind: str) -> bool:
        if kind != "text-cache":
            return self.needs.targets or self.needs.states or self.needs.spans
        wanted = {*self.needs.columns, self.stage.data.curriculum.by}
        return bool(wanted & OF_THE_TEXT_CACHE) and self.stage.data.train != ["teacher"]

    def _rows(self, student: OpenStudent, teacher: Teacher | None) -> StageData:
        data = _first_alone(lambda: self._load(student, teacher))
        self.run.sources = data.fingerprints
        return data

    def _load(self, student: OpenStudent, teacher: Teacher | None) -> StageData:
        stage, recipe, out = self.stage, self.recipe, self.run.out
        asks = teacher is not None and teacher.reads == "conversations"
        if asks and is_first():
            assert teacher is not None
            examples = load_examples(stage, recipe, out)
            for part in (examples.train, examples.eval):
                if part is not None:
                    teacher.prepare(row["messages"] for row in part if row["messages"])  # type: ignore[index, call-overload]
        data = load_rows(
            stage,
            recipe,
            student.tokenizer,
            out,
            chat_template=student.chat_template,
            needs_columns=self.needs.columns,
            teacher_rows=teacher.rows if asks and teacher is not None else None,
        )
        if teacher is not None and teacher.reads == "tokens" and is_first():
            for part in (data.train, data.eval):
                if part is not None:
                    teacher.prepare(part)
        return data


def _pad_id(student: OpenStudent) -> int:
    """Any token will do: nothing that counts sees it."""
    pad_id = student.tokenizer.pad_token_id
    return pad_id if isinstance(pad_id, int) else 0


def _first_alone(make: Any) -> Any:
    """What ``make`` makes: by the first process with nobody beside it, then by the others, who find it made."""
    made = make() if is_first() else None
    wait_for_all()
    made = made if is_first() else make()
    wait_for_all()
    return made
