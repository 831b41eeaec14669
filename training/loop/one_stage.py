"""A stage of a recipe: its student, teacher and rows are brought together, trained, and the result is saved."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..data.load import StageData, load_examples, load_rows
from ..data.store import digest
from ..optim.freezing import choose_trained
from ..recipe.needs import columns_of_stage, needs_of_stage, uses_teacher
from ..report.metrics import Metrics
from ..student.lora import merged, with_lora
from ..student.open import OpenStudent, open_student
from ..teacher.open import open_teacher
from ..teacher.taught import check_columns
from .baseline import compared
from .checkpoints import last_checkpoint, load_trained
from .stage import Outcome, train_rows
from .student import dtype_of, first_student, open_stage_student, save_stage_student
from .together import first_alone, is_first, wait_for_all, weights_are_spread

if TYPE_CHECKING:
    from pathlib import Path

    from ..recipe.schema import Stage
    from ..teacher.base import Teacher
    from .run import Run


class OneStage:
    def __init__(self, run: Run, number: int, name: str, stage: Stage) -> None:
        self.run, self.number, self.name, self.stage = run, number, name, stage
        self.recipe = run.recipe
        self.folder = run.folder(name)
        self.needs = needs_of_stage(stage)

    def train(self) -> Outcome:
        if self.stage.rounds is not None:
            from .teaching import teach_itself

            return teach_itself(self)
        student = self.student()
        teacher = self._teacher(student)
        try:
            data = self._rows(student, teacher)
            result = self.folder / "model"
            outcome = self.fit(student, teacher, data, self.stage, self.folder, self.stage.name, result)
            if self.stage.baseline is not None and outcome.is_finished:
                del student
                outcome = compared(self, outcome, teacher, data)
            return outcome
        finally:
            if teacher is not None:
                teacher.close()

    def prepare(self) -> None:
        """Only what the teacher is to be asked. Every stage's rows are encoded by the first student's tokenizer."""
        if not uses_teacher(self.stage, self.recipe):
            return
        student = self._first_student()
        teacher = self._teacher(student)
        assert teacher is not None, "the stage uses it"
        try:
            first_alone(lambda: self._load(student, teacher))
        finally:
            teacher.close()

    def fit(
        self,
        student: OpenStudent,
        teacher: Teacher | None,
        data: StageData,
        stage: Stage,
        folder: Path,
        name: str,
        result: Path | None,
        origin: Path | None = None,
    ) -> Outcome:
        """Train, with checkpoints in ``folder``, and save the trained student as ``result``; None keeps nothing.

        ``origin``: the folder that ``student`` was read from, where it is not that of the stage's beginning.
        """
        for note in data.notes:
            self.run.say(note)
        model = _adapted(student, stage)
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
        if outcome.is_finished and result is not None:
            if weights_are_spread():
                model = self._in_one_piece(stage, folder, origin)
            whole = merged(model) if stage.lora else model
            if is_first():
                save_stage_student(replace(student, model=whole), result, dtype_of(whole))
            wait_for_all()
        return outcome

    def _in_one_piece(self, stage: Stage, folder: Path, origin: Path | None) -> Any:
        """The trained model anew, from the last checkpoint: of the one in memory each process has a part only."""
        from torch import nn

        student = open_stage_student(origin, self.recipe) if origin else self.student()
        model = _adapted(student, stage)
        choose_trained(model, stage.frozen, stage.trained)
        checkpoint = last_checkpoint(folder)
        assert checkpoint, "a finished stage ends with one"
        load_trained(nn.ModuleDict({"model": model}), checkpoint)
        return model

    def student(self) -> OpenStudent:
        """The first process makes what has to be made; the others read it."""
        before = self.run.before(self.number)
        if before is not None:
            return open_stage_student(before, self.recipe)
        return self._first_student()

    def _first_student(self) -> OpenStudent:
        return first_alone(lambda: first_student(self.recipe, self.run.resolve_model, self.run.out))

    def _teacher(self, student: OpenStudent) -> Teacher | None:
        table = self.recipe.teacher
        if table is None or not uses_teacher(self.stage, self.recipe):
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
            needs_same_tokens=self.needs.same_tokens,
            needs_columns=columns_of_stage(self.stage),
            say=self.run.say,
            price=self.run.price,
        )
        self.run.teacher_identity = teacher.identity()
        return teacher

    def _rows(self, student: OpenStudent, teacher: Teacher | None) -> StageData:
        data = first_alone(lambda: self._load(student, teacher))
        if teacher is not None:
            self.run.teacher_identity = teacher.identity()  # which tells more of one that has answered
        self.run.use_data(self.name, data.fingerprints, digest(data.train))
        return data

    def _load(self, student: OpenStudent, teacher: Teacher | None) -> StageData:
        stage, recipe, out = self.stage, self.recipe, self.run.out
        asked = teacher if teacher is not None and teacher.reads == "conversations" else None
        if asked is not None and is_first():
            self._ask(asked)
        data = load_rows(
            stage,
            recipe,
            student.tokenizer,
            out,
            chat_template=student.chat_template,
            needs_columns=self.needs.columns,
            teacher_rows=None if asked is None else asked.rows,
        )
        if teacher is not None and teacher.reads == "tokens" and is_first():
            teacher.prepare(*(part for part in (data.train, data.eval) if part is not None))
        return data

    def _ask(self, teacher: Teacher) -> None:
        """Everything that the stage's data ask, if with the answers it can be trained on."""
        examples = load_examples(self.stage, self.recipe, self.run.out)
        check_columns(columns_of_stage(self.stage), examples.train)
        if examples.eval is not None:
            check_columns(self.needs.columns, examples.eval)
        parts = [part["messages"] for part in (examples.train, examples.eval) if part is not None]
        if any(messages for part in parts for messages in part):
            teacher.prepare(*([messages for messages in part if messages] for part in parts))


def _adapted(student: OpenStudent, stage: Stage) -> Any:
    return with_lora(student.model, stage.lora, seed=stage.seed) if stage.lora else student.model


def _pad_id(student: OpenStudent) -> int:
    """Any token will do: nothing that counts sees it."""
    pad_id = student.tokenizer.pad_token_id
    return pad_id if isinstance(pad_id, int) else 0
