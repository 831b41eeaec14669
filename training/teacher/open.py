"""From the ``[teacher]`` table of a recipe to a teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.errors import ConfigError, ModelError, TrainingError
from ...runtime.json_file import read_json
from .base import Say, Teacher
from .files import IDENTITY_FILE

if TYPE_CHECKING:
    from ..recipe.schema import Teacher as TeacherTable
    from .endpoint import Patience
    from .logit_cache import LogitCache, Source
    from .online import OnlineTeacher
    from .progress import Price

ResolveModel = Callable[[str], Path]


def open_teacher(
    table: TeacherTable,
    folder: Path,
    *,
    resolve_model: ResolveModel,
    student: Any = None,
    tokenizer: Any = None,
    device: Any = None,
    with_states: bool = False,
    say: Say,
    price: Price | None = None,
    patience: Patience | None = None,
) -> Teacher:
    """The teacher of a recipe. ``folder`` is where caches go unless the table names another.

    ``student`` (a model of transformers) and ``tokenizer`` are needed by teachers that have logits: their vocabularies
    must be the student's. ``device``: None is CUDA where there is one. Raises ConfigError and ModelError.
    """
    folder = Path(table.cache) if table.cache else folder
    if table.kind == "text-cache":
        from .text_cache import TextCache

        size = None if table.endpoint or tokenizer is None else len(tokenizer)
        return TextCache(table, folder, say=say, price=price, vocab_size=size, patience=patience)
    if table.max_rows is not None:
        raise ConfigError("teacher.max_rows is for a text-cache: limit the data with data.max_rows")
    if table.kind == "online":
        return _online(table, resolve_model, student, device, with_states=with_states)
    return _logit_cache(table, folder, resolve_model, student, tokenizer, device, say, price, patience)


def _online(
    table: TeacherTable, resolve_model: ResolveModel, student: Any, device: Any, *, with_states: bool
) -> OnlineTeacher:
    from .online import OnlineTeacher

    assert table.model
    if table.model != "student":
        model = load_model(table, resolve_model, device)
    else:
        from copy import deepcopy

        model = deepcopy(student)
        model = model if device is None else model.to(device)
    check_vocabulary(model, student)
    return OnlineTeacher(model, table.model, with_states=with_states)


def _logit_cache(
    table: TeacherTable,
    folder: Path,
    resolve_model: ResolveModel,
    student: Any,
    tokenizer: Any,
    device: Any,
    say: Say,
    price: Price | None,
    patience: Patience | None,
) -> LogitCache:
    from .logit_cache import LogitCache

    if not (table.model or table.endpoint):
        return LogitCache(folder, _brought(folder), None, say=say)
    if table.sampled and table.endpoint:
        raise ConfigError(
            "teacher.sampled needs whole distributions, which an endpoint does not give: use teacher.model"
        )
    vocab_size = vocabulary_of(student)
    identity = {
        "model": table.model,
        "top_k": min(table.top_k, vocab_size),
        "sampled": table.sampled,
        "vocab_size": vocab_size,
    }

    def source() -> Source:
        if table.endpoint:
            from .prompt_logprobs import EndpointSource, TokenNames

            names = TokenNames(tokenizer)
            many = table.concurrency
            return EndpointSource(table.endpoint, table.model, table.top_k, names, concurrency=many, patience=patience)
        from .capture import ModelSource

        model = load_model(table, resolve_model, device)
        check_vocabulary(model, student)
        return ModelSource(model, identity["top_k"], sampled=table.sampled)

    return LogitCache(folder, identity, source, say=say, price=price)


def _brought(folder: Path) -> dict[str, Any]:
    path = folder / IDENTITY_FILE
    if not path.is_file():
        raise ConfigError(f"{folder} is no logit cache: there is no {IDENTITY_FILE} in it")
    found = read_json(path, TrainingError)
    if found.get("kind") != "logit-cache":
        raise ConfigError(f"{folder} is a {found.get('kind')}, and the recipe wants a logit-cache")
    return found


def load_model(table: TeacherTable, resolve_model: ResolveModel, device: Any) -> Any:
    """The teacher's model. In float32 on a CPU, where half precision is slower and less exact."""
    import torch
    from transformers import AutoModelForCausalLM

    assert table.model
    path = resolve_model(table.model)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = torch.float32 if device.type == "cpu" else getattr(torch, table.dtype)
    try:
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:300]
        raise ModelError(f"the teacher {table.model} cannot be loaded: {said}") from error


def vocabulary_of(model: Any) -> int:
    """Rows of the output matrix."""
    return int(model.get_output_embeddings().weight.shape[0])


def check_vocabulary(teacher: Any, student: Any) -> None:
    """ConfigError when their logits are not of the same tokens."""
    if student is not None and vocabulary_of(teacher) != vocabulary_of(student):
        raise ConfigError(
            f"the teacher has logits of {vocabulary_of(teacher)} tokens and the student of {vocabulary_of(student)}: "
            "without a common tokenizer use a text-cache"
        )
