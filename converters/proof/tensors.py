"""Every tensor of an artifact against the one of its source: there, of the same shape, and as close as its type allows.

The error is counted twice: over the whole tensor, where a type has a narrow range, and per block, where one damaged
scale shows that the whole would hide.
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod, sqrt
from typing import Any, Protocol, TypeGuard

import numpy as np

from ..checkpoint.dtypes import STORAGE, all_finite
from ..gguf.encode import MAX_F16
from ..gguf.plan import TensorPlan, row_chunks
from ..gguf.reader import GGUFTensor
from ..progress import Progress, Silent
from .bounds import block_size, tensor_bound

_LEAST_ENERGY = 0.01
"""A block with less of the usual energy counts as if it had so much: scales of 16 bits cannot hold what is tiny."""
_MAX_PROBLEMS = 20


class SourceTensor(Protocol):
    """What a tensor should be: a ``TensorPlan``, or a tensor of another GGUF file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def float32_rows(self) -> Iterator[tuple[slice, np.ndarray]]: ...

    def release(self) -> None: ...


class CheckedTensor(SourceTensor, Protocol):
    """A tensor of an artifact: a ``GGUFTensor``, or a ``FolderTensor``."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ClampedTensor:
    """Another tensor with what is beyond float16 cut off, as the writer does where it may."""

    tensor: SourceTensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    def float32_rows(self) -> Iterator[tuple[slice, np.ndarray]]:
        """The tensor's rows, cut off."""
        for rows, values in self.tensor.float32_rows():
            yield rows, np.clip(values, -MAX_F16, MAX_F16)

    def release(self) -> None:
        """Give its mapped pages back."""
        self.tensor.release()


@dataclass(frozen=True, slots=True)
class TensorError:
    """Relative root-mean-square errors of a tensor: all of it, and its worst block."""

    name: str
    type: str
    rmse: float
    block_rmse: float


@dataclass(frozen=True, slots=True)
class TensorReport:
    """Errors of all tensors that are there on both sides, and in ``problems`` what must not be, a line each.
    ``clamped``: of how many values only as much was compared as float16 can hold, by tensor."""

    count: int
    parameters: int
    errors: list[TensorError] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    clamped: dict[str, int] = field(default_factory=dict)

    @property
    def is_exact(self) -> bool:
        """Whether every number is the source's."""
        return not (self.problems or self.clamped) and all(error.rmse == 0 for error in self.errors)

    def to_json(self) -> dict[str, Any]:
        """For the proof file: per type the worst tensor and the worst block, with their bounds."""
        types = sorted({error.type for error in self.errors})
        return {
            "passed": not self.problems,
            "count": self.count,
            "parameters": self.parameters,
            "exact": self.is_exact,
            **({"clamped": self.clamped} if self.clamped else {}),
            "types": {name: _worst([error for error in self.errors if error.type == name]) for name in types},
        }


def check_tensors(
    source: Mapping[str, SourceTensor],
    artifact: Mapping[str, CheckedTensor],
    progress: Progress | None = None,
    clamped: Mapping[str, int] | None = None,
) -> TensorReport:
    """Compare all of them; those in ``clamped`` with what float16 can hold of the source.

    Memory stays at a few megabytes a processor, and what the sources need to arrange one.
    """
    clamped = {name: count for name, count in (clamped or {}).items() if name in source}
    source = {name: ClampedTensor(tensor) if name in clamped else tensor for name, tensor in source.items()}
    problems = [f"the tensor {name} is missing" for name in source if name not in artifact]
    problems += [f"the tensor {name} is not in the source" for name in artifact if name not in source]
    shared = [name for name in source if name in artifact]
    same = [name for name in shared if _is_same_shape(source[name].shape, artifact[name].shape)]
    for name in sorted({*shared} - {*same}):
        problems.append(f"the tensor {name} has the shape {artifact[name].shape} instead of {source[name].shape}")
    errors: list[TensorError] = []
    parameters = sum(prod(tensor.shape) for tensor in artifact.values())
    with (
        (progress or Silent()).stage("Comparing tensors", parameters, "parameters") as advance,
        ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool,
    ):
        for error in pool.map(lambda name: _compare(source[name], artifact[name]), same):
            errors.append(error)
            advance(prod(artifact[error.name].shape))
            problems += _problems(error)
    if len(problems) > _MAX_PROBLEMS:
        problems[_MAX_PROBLEMS:] = [f"and {len(problems) - _MAX_PROBLEMS} more"]
    return TensorReport(len(artifact), parameters, errors, problems, clamped)


def _is_same_shape(wanted: tuple[int, ...], found: tuple[int, ...]) -> bool:
    """But for leading dimensions of 1, which llama.cpp does not write when it quantizes."""
    size = max(len(wanted), len(found))
    return (1,) * (size - len(wanted)) + wanted == (1,) * (size - len(found)) + found


def _compare(source: SourceTensor, artifact: CheckedTensor) -> TensorError:
    """Sums of squares in float32 per block, in float64 over blocks."""
    if _is_copy(source, artifact):
        return TensorError(artifact.name, artifact.type, 0.0, 0.0)
    lost, energy = [np.zeros(0)], [np.zeros(0)]
    for (_, wanted), (_, found) in zip(source.float32_rows(), artifact.float32_rows(), strict=True):
        size = block_size(artifact.type, wanted.shape[1])
        lost.append(_squares(found - wanted, size))
        energy.append(_squares(wanted, size))
    source.release()
    artifact.release()
    rmse, block_rmse = _relative(np.concatenate(lost), np.concatenate(energy))
    return TensorError(artifact.name, artifact.type, rmse, block_rmse)


def _is_copy(source: SourceTensor, artifact: CheckedTensor) -> bool:
    """Whether the artifact has the very bits of its source, and they are numbers. It spares most files of 16 bits all
    arithmetic."""
    if not isinstance(artifact, GGUFTensor) or artifact.type not in STORAGE or not _may_be_copy(source, artifact.type):
        return False
    found = artifact.raw().view(STORAGE[artifact.type])
    wanted = source.raw().view(found.dtype) if isinstance(source, GGUFTensor) else source.elements()[0]
    unsigned = f"<u{found.dtype.itemsize}"
    for rows in row_chunks(*found.shape):
        if not np.array_equal(found[rows].view(unsigned), np.ascontiguousarray(wanted[rows]).view(unsigned)):
            return False
        if not all_finite(found[rows], artifact.type):
            return False
    source.release()
    artifact.release()
    return True


def _may_be_copy(source: SourceTensor, type_name: str) -> TypeGuard[TensorPlan | GGUFTensor]:
    if isinstance(source, TensorPlan):
        return source.compute is None and {one.dtype for one in source.sources} == {type_name}
    return isinstance(source, GGUFTensor) and source.type == type_name


def _squares(values: np.ndarray, size: int) -> np.ndarray:
    if rest := -values.shape[1] % size:  # the last block of a row may be filled up
        values = np.pad(values, ((0, 0), (0, rest)))
    blocks = values.reshape(-1, size)
    return np.vecdot(blocks, blocks)


def _relative(lost: np.ndarray, energy: np.ndarray) -> tuple[float, float]:
    total_lost, total = float(lost.sum(dtype=np.float64)), float(energy.sum(dtype=np.float64))
    if total_lost == 0:
        return 0.0, 0.0
    if total == 0 or not np.isfinite(total_lost):
        return (float("inf"), float("inf")) if np.isfinite(total_lost) else (float("nan"), float("nan"))
    least = np.float32(_LEAST_ENERGY * total / len(energy))
    return sqrt(total_lost / total), sqrt(float((lost / np.maximum(energy, least)).max()))


def _problems(error: TensorError) -> list[str]:
    bound = tensor_bound(error.type)
    what = f"the tensor {error.name} ({error.type})"
    if error.rmse != error.rmse:
        return [f"{what} holds NaN or infinity"]
    if error.rmse > bound.tensor:
        return [f"{what} is off by {error.rmse:.3g} of its size, at most {bound.tensor:.3g} is right for its type"]
    if error.block_rmse > bound.block:
        return [f"{what} has a block off by {error.block_rmse:.3g} of its size, at most {bound.block:.3g} is right"]
    return []


def _worst(errors: list[TensorError]) -> dict[str, Any]:
    bound = tensor_bound(errors[0].type)
    rmse = max(errors, key=lambda error: _order(error.rmse))
    block = max(errors, key=lambda error: _order(error.block_rmse))
    return {
        "tensors": len(errors),
        "relative_rmse": _shown(rmse.rmse),
        "tensor": rmse.name,
        "bound": _shown(bound.tensor),
        "block_relative_rmse": _shown(block.block_rmse),
        "block_tensor": block.name,
        "block_bound": _shown(bound.block),
    }


def _order(value: float) -> float:
    return value if value == value else float("inf")


def _shown(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None
