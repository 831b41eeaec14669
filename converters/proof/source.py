"""What an artifact was made from, as far as a proof compares with it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from ...runtime.chat.end_of_turn import derive_end_of_turn
from ...runtime.chat.template import ChatTemplate
from ...runtime.errors import ModelError
from ...runtime.gguf_files import read_parts
from ...runtime.profile import load_profile
from ..checkpoint.checkpoint import Checkpoint
from ..gguf.plan import ModelPlan
from ..gguf.reader import GGUFTensors
from ..gguf.templates import template_names
from .tensors import SourceTensor

HASHED_BYTES = 4_000_000_000
"""Weights of as many bytes, all files together, are hashed; of more only the sizes are told."""
_REVISION = re.compile(r"[0-9a-f]{40}")
_SMALL_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "chat_template.jinja", "model.safetensors.index.json",
)  # fmt: skip


@dataclass(frozen=True)
class ProofSource:
    """``identity`` tells this source from others, together with its files of ``weights`` (see ``identify``);
    ``tokenizer`` has its ``tokenizer.ggml.*`` keys if it is a GGUF file.

    ``stop_strings`` and ``eog_ids`` are what its own files say ends an answer, and the end of a turn by its template.
    """

    name: str
    identity: Mapping[str, Any]
    tensors: Mapping[str, SourceTensor]
    chat_templates: Mapping[str, str] = field(default_factory=dict)
    bos_token: str | None = None
    eos_token: str | None = None
    stop_strings: tuple[str, ...] = ()
    eog_ids: tuple[int, ...] = ()
    tokenizer: Mapping[str, Any] | None = None
    weights: tuple[Path, ...] = ()

    def identify(self, *, is_hashed: bool = True) -> dict[str, Any]:
        """``identity`` and for each file of weights its bytes and, if wanted, its SHA-256, the latter only up to
        HASHED_BYTES in all; ``weights`` says which. It reads all of them, once in the life of the process."""
        sizes = {path: path.stat().st_size for path in self.weights}
        is_hashed = is_hashed and sum(sizes.values()) <= HASHED_BYTES
        found: dict[str, Any] = {**self.identity, "weights": "bytes, sha256" if is_hashed else "bytes"}
        for path, size in sizes.items():
            digest = {"sha256": _digest(path, size, path.stat().st_mtime_ns)} if is_hashed else {}
            found[path.name] = {"bytes": size, **digest}
        return found


@lru_cache(maxsize=256)
def _digest(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def checkpoint_source(checkpoint: Checkpoint, plan: ModelPlan) -> ProofSource:
    """A Hugging Face folder whose tensors a plan rearranges."""
    tokens = plan.metadata.get("tokenizer.ggml.tokens")
    return folder_source(
        checkpoint,
        {tensor.name: tensor for tensor in plan.tensors},
        lambda token: tokens.index(token) if isinstance(tokens, list) and token in tokens else None,
    )


def folder_source(
    checkpoint: Checkpoint, tensors: Mapping[str, SourceTensor], id_of: Callable[[str], int | None]
) -> ProofSource:
    """A Hugging Face folder: ``tensors`` are what an artifact's should be, ``id_of`` gives a token's id. Stops and
    templates are read from its own files."""
    bos, eos = _special_token(checkpoint, "bos_token"), _special_token(checkpoint, "eos_token")
    templates = template_names(checkpoint.chat_templates)
    declared = _list(checkpoint.generation_config.get("stop_strings"))
    eos_ids = _list(checkpoint.generation_config.get("eos_token_id")) or _list(checkpoint.config.get("eos_token_id"))
    own_eos = id_of(eos) if eos else None
    return ProofSource(
        name=checkpoint.name,
        identity=_identity(checkpoint),
        tensors=tensors,
        chat_templates=templates,
        bos_token=bos,
        eos_token=eos,
        stop_strings=tuple(dict.fromkeys([*declared, *_end_of_turn(templates.get("default"), bos, eos)])),
        eog_ids=tuple(dict.fromkeys([*eos_ids, *([] if own_eos is None else [own_eos])])),
        weights=tuple(sorted(checkpoint.path.resolve().glob("*.safetensors"))),
    )


def gguf_source(path: Path) -> ProofSource:
    """A GGUF file of 16 or more bits that others are made from."""
    profile, tensors = load_profile(path), GGUFTensors(path)
    return ProofSource(
        name=path.name,
        identity={"bytes": profile.file_bytes, "file": path.name},
        weights=tuple(header.path for header in read_parts(path)),
        tensors=tensors,
        chat_templates=profile.chat_templates,
        bos_token=profile.bos_token,
        eos_token=profile.eos_token,
        stop_strings=tuple(dict.fromkeys([*profile.stop_strings, *filter(None, [profile.end_of_turn])])),
        eog_ids=profile.eog_ids,
        tokenizer=tensors.metadata,
    )


def _identity(checkpoint: Checkpoint) -> dict[str, Any]:
    """Hashes of the small files; for the Hub's cache also the commit."""
    path = checkpoint.path.resolve()
    found: dict[str, Any] = {}
    if _REVISION.fullmatch(path.name):
        found["revision"] = path.name
    for name in _SMALL_FILES:
        if (file := path / name).is_file():
            found[name] = {"sha256": sha256(file.read_bytes()).hexdigest()}
    return found


def _special_token(checkpoint: Checkpoint, name: str) -> str | None:
    """Written as a text or as an object, in either of two files."""
    for values in (checkpoint.tokenizer_config, checkpoint.special_tokens_map):
        found = values.get(name)
        found = found.get("content") if isinstance(found, dict) else found
        if isinstance(found, str):
            return found
    return None


def _end_of_turn(template: str | None, bos: str | None, eos: str | None) -> list[str]:
    if template is None:
        return []
    try:
        found = derive_end_of_turn(ChatTemplate(template, bos_token=bos, eos_token=eos))
    except ModelError:
        return []
    return [found] if found else []


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
