"""What a proof looks at in an artifact, whichever its format."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from ...runtime.gguf_files import read_parts
from ...runtime.profile import ModelProfile, load_profile
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.dtypes import to_float32
from ..checkpoint.safetensors import CheckpointTensor
from ..folder import ArtifactTensor, FolderReport
from ..gguf.plan import row_chunks
from ..gguf.reader import GGUFTensors
from .tensors import CheckedTensor

_EXACT_TYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "f32": "F32", "f16": "F16"}
_WEIGHTS = ("*.safetensors", "*.onnx", "*.onnx.data")


@dataclass(frozen=True)
class Subject:
    """An artifact: its profile, the type that its weights were to have, how many numbers those are, its tensors by name
    and the bytes that they take, the files of its weights, which are hashed, and what it was made with."""

    path: Path
    profile: ModelProfile
    type: str | None
    parameters: int
    tensors: Mapping[str, CheckedTensor]
    num_bytes: int
    weights: tuple[Path, ...]
    versions: tuple[str, ...]


def gguf_subject(path: Path) -> Subject:
    """A GGUF file, or the first of several. ModelError when it cannot be read."""
    tensors = GGUFTensors(path)
    num_bytes = sum(tensor.num_bytes for tensor in tensors.values())
    files = tuple(header.path for header in read_parts(path))
    profile = load_profile(path)
    kind, parameters = profile.file_type, profile.parameters
    return Subject(path, profile, kind, parameters, tensors, num_bytes, files, ("llama_cpp_python",))


def folder_subject(path: Path, report: FolderReport, type_name: str) -> Subject:
    """An MLX or ONNX folder that has just been written. ModelError when it cannot be read."""
    profile = load_profile(path)
    tensors = {name: FolderTensor(name, tensor) for name, tensor in report.tensors.items()}
    num_bytes = sum(tensor.num_bytes for tensor in report.tensors.values())
    files = tuple(sorted(file for pattern in _WEIGHTS for file in path.glob(pattern)))
    versions = ("mlx", "mlx_lm") if profile.format == "mlx" else ("onnxruntime", "onnx_ir")
    parameters = sum(prod(tensor.shape) for tensor in report.tensors.values())
    return Subject(path, profile, type_name, parameters, tensors, num_bytes, files, (*versions, "llama_cpp_python"))


@dataclass(frozen=True, slots=True)
class FolderTensor:
    """A tensor of a folder, read back; see ``tensors.CheckedTensor``."""

    name: str
    tensor: ArtifactTensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def type(self) -> str:
        return _EXACT_TYPES.get(self.tensor.type, self.tensor.type)

    def float32_rows(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Some rows at a time; what has one dimension is one row."""
        for rows in _rows(self.shape):
            yield rows, self.tensor.read(rows).reshape(_two_dimensional(self.shape, rows))

    def release(self) -> None:
        """Its reader gives pages back itself."""


@dataclass(frozen=True, slots=True)
class SourceRows:
    """The checkpoint's tensors whose rows an artifact's tensor holds, one after the other. Where they are stacked, each
    is a row itself."""

    parts: tuple[CheckpointTensor, ...]
    is_stacked: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.parts[0].shape
        return (len(self.parts), *shape) if self.is_stacked else (sum(map(self._num_rows, self.parts)), *shape[1:])

    def _num_rows(self, part: CheckpointTensor) -> int:
        return 1 if self.is_stacked else part.shape[0]

    def float32_rows(self) -> Iterator[tuple[slice, np.ndarray]]:
        """The same rows as ``FolderTensor`` gives."""
        for rows in _rows(self.shape):
            yield rows, self._read(rows).reshape(_two_dimensional(self.shape, rows))

    def _read(self, rows: slice) -> np.ndarray:
        found, begin = [], 0
        for part in self.parts:
            end = begin + self._num_rows(part)
            wanted = slice(max(rows.start - begin, 0), min(rows.stop, end) - begin)
            if wanted.start < wanted.stop:
                bits = part.bits()[np.newaxis] if self.is_stacked else part.bits()
                found.append(to_float32(np.array(bits[wanted]), part.dtype))
            begin = end
        return np.concatenate(found)

    def release(self) -> None:
        """Give mapped pages back."""
        for part in self.parts:
            part.release()


def source_rows(checkpoint: Checkpoint, report: FolderReport) -> dict[str, SourceRows]:
    """By the names of the artifact's tensors what they were made from, and by their own names the checkpoint's tensors
    that nothing was made from."""
    used = {source for tensor in report.tensors.values() for source in tensor.sources}
    found = {
        name: _source_of(tuple(checkpoint.tensors[source] for source in tensor.sources), tensor)
        for name, tensor in report.tensors.items()
    }
    left = {name: SourceRows((tensor,)) for name, tensor in checkpoint.tensors.items() if name not in used}
    return {**found, **{name: rows for name, rows in left.items() if not _is_redundant(name, checkpoint)}}


def _source_of(parts: tuple[CheckpointTensor, ...], tensor: ArtifactTensor) -> SourceRows:
    return SourceRows(parts, is_stacked=len(tensor.shape) > len(parts[0].shape))


def _is_redundant(name: str, checkpoint: Checkpoint) -> bool:
    """Whether a tensor only repeats what is known: rotary frequencies, or an output layer that is the embedding."""
    is_tied = name == "lm_head.weight" and checkpoint.config.get("tie_word_embeddings")
    return name.endswith(".rotary_emb.inv_freq") or bool(is_tied)


def _rows(shape: tuple[int, ...]) -> Iterator[slice]:
    if len(shape) < 2:
        return iter((slice(0, shape[0] if shape else 1),))
    return row_chunks(shape[0], int(np.prod(shape[1:])))


def _two_dimensional(shape: tuple[int, ...], rows: slice) -> tuple[int, int]:
    return (1, rows.stop) if len(shape) < 2 else (rows.stop - rows.start, int(np.prod(shape[1:])))
