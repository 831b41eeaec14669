"""What a model's files weigh and how large its vocabulary is, for a report; in one shape for every format."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .folder_configs import read_configs
from .folder_weights import read_weights
from .gguf_facts import TOKENS
from .gguf_files import read_parts
from .profile import ModelProfile
from .tokenizer.vocabulary import read_vocabulary


class SizedTensor(Protocol):
    """A tensor as far as its size goes."""

    @property
    def type(self) -> str: ...
    @property
    def parameters(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """``quantization`` is that of ``FolderWeights``."""

    files: list[Path]
    tensors: Sequence[SizedTensor]
    vocabulary_size: int | None
    vocabulary_source: str
    quantization: dict[str, Any] | None = None


def read_model_weights(profile: ModelProfile) -> ModelWeights:
    """Of the model that the profile is of. ModelError when a file is damaged."""
    if profile.format == "gguf":
        headers = read_parts(profile.path)
        tensors = [tensor for header in headers for tensor in header.tensors]
        size = headers[0].metadata.count(TOKENS)
        return ModelWeights([header.path for header in headers], tensors, size, f"metadata key {TOKENS}")
    weights = read_weights(read_configs(profile.path), profile.format)
    vocabulary = read_vocabulary(profile.path)
    size, source = (vocabulary.size, vocabulary.path.name) if vocabulary else (None, "")
    return ModelWeights(weights.files, weights.tensors, size, source, weights.quantization)
