"""What folder artifacts (MLX, ONNX) have in common: what a writer reports, and the files that go with the weights."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.chat.end_of_turn import derive_end_of_turn
from ..runtime.chat.files import DEFAULT, FOLDER
from ..runtime.chat.template import ChatTemplate
from ..runtime.errors import ModelError
from .checkpoint.checkpoint import Checkpoint

_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
)


@dataclass(frozen=True, slots=True)
class ArtifactTensor:
    """A tensor of an artifact, as far as a proof compares it with its source.

    ``sources`` are the checkpoint's tensors whose rows it holds, one after the other; ``shape`` is what they make
    together, rows first. ``type`` names how it is stored (``fp16``, ``int4-g32``, ``4bit-g64``). ``read`` gives rows
    as float32, in the checkpoint's order and scale.
    """

    sources: tuple[str, ...]
    shape: tuple[int, ...]
    type: str
    num_bytes: int
    read: Callable[[slice], np.ndarray]


@dataclass(frozen=True, slots=True)
class FolderReport:
    """What a writer has made. ``fallbacks`` maps a tensor that could not be stored as asked to the type it has
    instead, ``clamped`` one to how many of its values were cut off."""

    seconds: float
    tensors: Mapping[str, ArtifactTensor]
    fallbacks: dict[str, str] = field(default_factory=dict)
    clamped: dict[str, int] = field(default_factory=dict)


def write_companions(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the tokenizer, the chat templates and ``generation_config.json`` of the checkpoint into ``folder``.
    ``config.json`` is the format's own affair."""
    for name in _TOKENIZER_FILES:
        if (path := checkpoint.path / name).is_file():
            shutil.copyfile(path, folder / name)
    tokenizer_config = {key: value for key, value in checkpoint.tokenizer_config.items() if key != "chat_template"}
    _write_json(folder / "tokenizer_config.json", tokenizer_config)
    for name, source in checkpoint.chat_templates.items():
        path = folder / "chat_template.jinja" if name == DEFAULT else folder / FOLDER / f"{name}.jinja"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")
    _write_json(folder / "generation_config.json", generation_config(checkpoint))


def generation_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint's, with every way in which an answer ends: ``eos_token_id`` as a list, and in ``stop_strings``
    those declared and the end of turn that the chat template shows."""
    found = dict(checkpoint.generation_config)
    ids = found.get("eos_token_id", checkpoint.config.get("eos_token_id"))
    if ids is not None:
        found["eos_token_id"] = ids if isinstance(ids, list) else [ids]
    declared = found.get("stop_strings") or []
    stops = [declared] if isinstance(declared, str) else list(declared)
    if end := _end_of_turn(checkpoint):
        stops.append(end)
    if stops:
        found["stop_strings"] = list(dict.fromkeys(stops))
    return found


def _end_of_turn(checkpoint: Checkpoint) -> str | None:
    source = checkpoint.chat_templates.get(DEFAULT)
    if source is None:
        return None
    bos, eos = (_token(checkpoint, name) for name in ("bos_token", "eos_token"))
    try:
        return derive_end_of_turn(ChatTemplate(source, bos_token=bos, eos_token=eos))
    except ModelError:  # no valid Jinja: the template proof says so
        return None


def _token(checkpoint: Checkpoint, name: str) -> str | None:
    found = checkpoint.tokenizer_config.get(name) or checkpoint.special_tokens_map.get(name)
    found = found.get("content") if isinstance(found, dict) else found
    return found if isinstance(found, str) else None


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
