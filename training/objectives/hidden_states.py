"""Which hidden states of a student and of a teacher are compared, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...runtime.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from .batch import Forward
    from .options import HiddenOptions


def pairs_of(options: HiddenOptions, num_student: int, num_teacher: int) -> list[tuple[int, int]]:
    """Pairs of indices into hidden states of these numbers, the embedding's included.

    ``all`` are the outputs of all layers, the last with the last, for both have gone through the final norm. A student
    may have one layer more than its teacher (the identity layer that a model of Kimi Delta Attention carries for
    others' sake).
    """
    if options.layers != "all":
        for student, teacher in options.layers:
            if not (-num_student <= student < num_student and -num_teacher <= teacher < num_teacher):
                counts = f"the student has {num_student} hidden states and the teacher {num_teacher}"
                raise ConfigError(f"layers has [{student}, {teacher}], and {counts}, the embedding's included")
        return options.layers
    if num_student - num_teacher not in (0, 1):
        counts = f"the student has {num_student - 1} layers and the teacher {num_teacher - 1}"
        raise ConfigError(f"{counts}: say which belong together, like layers = [[1, 2], [2, 4]]")
    return [(idx, idx) for idx in range(1, num_teacher - 1)] + [(-1, -1)]


def compared(options: HiddenOptions, forward: Forward) -> Iterator[tuple[Tensor, Tensor]]:
    """For each pair, the student's and the teacher's hidden states at the predictions, (N, D) float32 each."""
    student, teacher = forward.states, forward.teacher_states
    if student is None or teacher is None:
        raise TrainingError("a term compares hidden states, and there are none: only an online teacher has them")
    for ours, theirs in pairs_of(options, len(student), len(teacher)):
        if student[ours].shape[-1] != teacher[theirs].shape[-1]:
            sizes = f"{student[ours].shape[-1]} and the teacher's {teacher[theirs].shape[-1]}"
            raise ConfigError(
                f"the student's hidden states have size {sizes}: they can only be compared at the same size"
            )
        where = (forward.row, forward.position)
        yield student[ours][where].float(), teacher[theirs][where].detach().float()
