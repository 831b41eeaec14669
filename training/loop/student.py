"""A student between stages: opened from the folder of the one before, and saved for the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..recipe.schema import Dtype, Recipe
from ..student.open import OpenStudent, open_student, read_student
from ..student.save import save_student
from .module import check_student

if TYPE_CHECKING:
    import torch

KDA = "kimi_linear"


def first_student(recipe: Recipe, resolve_model: Callable[[str], Path], out: Path) -> OpenStudent:
    """As the first stage begins: with attention replaced where the recipe says so. Raises ModelError for a model that
    cannot be trained here."""
    student = _as_trained(open_student(recipe, resolve_model, out))
    if recipe.student.kda is not None:
        from ..kda.surgery import replace_attention

        model = replace_attention(student.model, recipe.student.kda, seed=recipe.stages[0].seed)
        student = replace(student, model=model)
    check_student(student.model)
    return student


def open_stage_student(folder: Path, recipe: Recipe) -> OpenStudent:
    """The result of a stage."""
    return _as_trained(read_student(folder, recipe.student))


def _as_trained(student: OpenStudent) -> OpenStudent:
    """A model with Kimi Delta Attention without what was added for other programs; any other one as it is."""
    if student.model.config.model_type != KDA:
        return student
    from ..kda.portable import from_portable

    return replace(student, model=from_portable(student.model))


def save_stage_student(student: OpenStudent, folder: Path, dtype: Dtype) -> None:
    """With what plain transformers and ``tapster convert`` need of a model with Kimi Delta Attention."""
    model = student.model
    if model.config.model_type == KDA:
        from ..kda.portable import to_portable

        model = to_portable(model)
    save_student(
        model,
        student.tokenizer,
        folder,
        dtype=dtype,
        chat_template=student.chat_template,
        stop_strings=student.stop_strings,
    )


def dtype_of(model: torch.nn.Module) -> Dtype:
    """The widest of the weights: what a stage's result is kept in, so that the next goes on exactly."""
    import torch

    dtypes = {parameter.dtype for parameter in model.parameters()}
    names: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")
    return next(name for name in names if getattr(torch, name) in dtypes)
