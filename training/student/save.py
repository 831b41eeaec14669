"""A student as a Hugging Face folder that transformers, ``tapster convert`` and ``tapster serve`` take as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..disk import or_a_clear_end_of_files
from ..recipe.schema import Dtype
from .ends import endings

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

_OF_THIS_MACHINE = ("is_local", "local_files_only", "name_or_path")
_NOT_OURS = ("_from_model_config", "transformers_version", "output_attentions", "output_hidden_states", "use_cache")
_DRAFT = ".{name}.unfinished"
_UNLIMITED = 10**29
"""transformers writes a longer length than this for a tokenizer that has none."""


def save_student(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    dtype: Dtype,
    chat_template: str | None = None,
    stop_strings: Sequence[str] = (),
) -> Path:
    """Weights in ``dtype``, tokenizer, chat template, and how answers end. ``model`` stays as it is.

    The folder is written whole or not at all, and replaces one that is there. TrainingError when there is no room.
    """
    draft = folder.with_name(_DRAFT.format(name=folder.name))
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with or_a_clear_end_of_files(f"save the model to {folder}"):
            draft.mkdir(parents=True)
            _write(model, tokenizer, draft, dtype, chat_template, stop_strings)
            if folder.exists():
                shutil.rmtree(folder)
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    dtype: Dtype,
    chat_template: str | None,
    stop_strings: Sequence[str],
) -> None:
    import torch

    target = getattr(torch, dtype)
    weights = _converted(model, target)
    generation = model.generation_config
    try:
        model.generation_config = generation_config(model, tokenizer, chat_template, stop_strings)
        model.save_pretrained(folder, state_dict=weights)
    finally:
        model.generation_config = generation
    _changed(folder / "config.json", dtype=dtype, use_cache=True)
    own = tokenizer.chat_template
    try:
        tokenizer.chat_template = chat_template or own
        tokenizer.save_pretrained(folder)
        _portable_config(folder, getattr(model.config, "max_position_embeddings", None))
    finally:
        tokenizer.chat_template = own
    for path in folder.iterdir():  # safetensors lets nobody else read what it writes
        path.chmod((folder / "config.json").stat().st_mode)


def _converted(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The weights in another type; those that are one (a tied head) stay one."""
    made: dict[int, torch.Tensor] = {}
    weights = {}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor = made.setdefault(tensor.data_ptr(), tensor.to(dtype))
        weights[name] = tensor
    return weights


def _portable_config(folder: Path, length: int | None) -> None:
    """Without what transformers remembers of this machine, with the class name that all its versions know, and with the
    model's ``length`` where the tokenizer names none."""
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text("utf-8"))
    changes: dict[str, object] = {}
    if values.get("tokenizer_class") == "TokenizersBackend":
        changes["tokenizer_class"] = "PreTrainedTokenizerFast"
    if length is not None and values.get("model_max_length", 0) > _UNLIMITED:
        changes["model_max_length"] = length
    _changed(path, **dict.fromkeys(_OF_THIS_MACHINE), **changes)


def _changed(path: Path, **changes: object) -> None:
    """Write values into a JSON file; None takes a key away."""
    values = {**json.loads(path.read_text("utf-8")), **changes}
    kept = {key: value for key, value in values.items() if value is not None or key not in changes}
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", "utf-8")


def generation_config(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str | None = None,
    stop_strings: Sequence[str] = (),
) -> GenerationConfig:
    """The model's own, with every id and text that ends an answer."""
    from transformers import GenerationConfig

    old = model.generation_config or GenerationConfig()
    source = chat_template or tokenizer.chat_template
    declared = [*_listed(old.eos_token_id), *_listed(model.config.eos_token_id)]
    declared = [token for token in declared if 0 <= token < len(tokenizer)]
    ids, texts = endings(
        tokenizer, source if isinstance(source, str) else None, [*stop_strings, *(old.stop_strings or [])], declared
    )
    values = {key: value for key, value in old.to_diff_dict().items() if key not in _NOT_OURS}
    values.update(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ids or None,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (ids or [None])[0],
        stop_strings=texts or None,
    )
    return GenerationConfig.from_dict(values)


def _listed(ids: int | list[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
