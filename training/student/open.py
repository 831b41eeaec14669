"""The student of a recipe, ready to be trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.errors import ConfigError, ModelError
from ..recipe.schema import Recipe, Student
from .ends import endings, template_source
from .save import save_student
from .scratch import scratch_model
from .tokenizer import make_tokenizer, open_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FOLDER = "student"


@dataclass
class OpenStudent:
    """``chat_template`` is Jinja, None for a model without one; ``stop_strings`` are the texts that end its answers."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stop_strings: list[str]
    chat_template: str | None


def open_student(recipe: Recipe, resolve_model: Callable[[str], Path], out: Path) -> OpenStudent:
    """The student as it is before the first stage.

    One that has to be made (from scratch, or with another tokenizer) is kept in ``out``/student, so that a run that is
    continued begins with the very same. Weights are float32; with ``masters = "as-saved"`` they are the student's
    ``dtype``. ConfigError or ModelError when there is no such model, or none can be made of it.
    """
    student = recipe.student
    if student.model is not None and student.tokenizer is None:
        return read_student(_folder(student.model, resolve_model), student)
    made = out / FOLDER
    if not (made / "config.json").is_file():
        _make(recipe, resolve_model, out, made)
    return read_student(made, student)


def read_student(folder: Path, student: Student) -> OpenStudent:
    """The student in a folder: one that was made, or a stage's result."""
    model = read_model(folder, _dtype(student), trust_remote_code=student.trust_remote_code)
    tokenizer = open_tokenizer(str(folder), Path)
    embedding: Any = model.get_input_embeddings()
    if embedding.weight.shape[0] < len(tokenizer):
        raise ModelError(
            f"the tokenizer of {folder} has {len(tokenizer)} tokens, more than the model's embedding has rows"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    source = template_source(student.chat_template, tokenizer)
    tokenizer.chat_template = source
    _, stops = endings(tokenizer, source, student.stop_strings)
    return OpenStudent(model, tokenizer, stops, source)


def read_model(folder: Path, dtype: torch.dtype, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model in a folder. ModelError when transformers cannot open it, or would fill in weights at random."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, trust_remote_code=trust_remote_code, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"cannot open the model {folder}: {' '.join(str(error).split())[:300]}") from error
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"the model {folder} lacks {len(missing)} weights, first {missing[0]}: download it again")
    return model


def _make(recipe: Recipe, resolve_model: Callable[[str], Path], out: Path, made: Path) -> None:
    from ..data.load import training_texts

    student = recipe.student
    if student.tokenizer is None:
        raise ConfigError("a student from scratch needs student.tokenizer: another model's, or train:N")
    tokenizer = make_tokenizer(
        student.tokenizer, texts=lambda: training_texts(recipe, out), resolve_model=resolve_model
    )
    model = _scratch_or_fitted(student, tokenizer, resolve_model, recipe.stages[0].seed)
    source = template_source(student.chat_template, tokenizer)
    save_student(model, tokenizer, made, dtype="float32", chat_template=source, stop_strings=student.stop_strings)


def _scratch_or_fitted(
    student: Student, tokenizer: PreTrainedTokenizerBase, resolve_model: Callable[[str], Path], seed: int
) -> PreTrainedModel:
    """From scratch, or a model whose embeddings get as many rows as the other tokenizer has tokens."""
    import torch

    if student.scratch is not None:
        return scratch_model(student.scratch, tokenizer, seed=seed)
    assert student.model is not None, "a recipe has a model or scratch values"
    folder = _folder(student.model, resolve_model)
    model = read_model(folder, torch.float32, trust_remote_code=student.trust_remote_code)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.resize_token_embeddings(len(tokenizer))
    return model


def _folder(model: str, resolve_model: Callable[[str], Path]) -> Path:
    folder = Path(model).expanduser()
    return folder if (folder / "config.json").is_file() else resolve_model(model)


def _dtype(student: Student) -> torch.dtype:
    import torch

    return getattr(torch, student.dtype) if student.masters == "as-saved" else torch.float32
