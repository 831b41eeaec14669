"""What a GGUF file is going to hold, before a byte of it is written: metadata, and where each tensor comes from.

A plan costs no memory. A tensor's elements are read from the checkpoint when they are wanted; ``arrange`` moves
them (permute, stack, pad) without knowing what they mean, so bfloat16 stays the bits it was, and ``compute`` is
arithmetic in float32 for the few tensors that need it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np

from ...runtime.errors import ConversionError
from ..checkpoint.dtypes import to_float32
from ..checkpoint.safetensors import CheckpointTensor

Value = bool | int | float | str | list[str] | np.ndarray | np.generic
"""A metadata value: int is stored as uint32 and float as float32; numpy scalars and arrays by their dtype."""
Arrange = Callable[..., np.ndarray]
"""Source arrays to one array; only moves elements, and fills up with zeros: it works on the raw bits of any dtype."""
Compute = Callable[[np.ndarray], np.ndarray]
"""Elementwise arithmetic on float32, so a large tensor goes through it some rows at a time."""

CHUNK_ELEMENTS = 1 << 20
"""How much of a tensor is worked on at once: a few megabytes, which stay in the processor's cache."""


class Rows:
    """What has a ``shape`` in numpy's order, seen as rows: all leading dimensions are taken together."""

    __slots__ = ()
    shape: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        return prod(self.shape[:-1])

    @property
    def row_elements(self) -> int:
        return self.shape[-1] if self.shape else 1


@dataclass(frozen=True, slots=True)
class TensorPlan(Rows):
    """One tensor of the file. ``shape`` is in numpy's order and holds after arranging.

    ``constant`` makes a tensor that is not in the checkpoint, in float32. ``keep`` is the type it is stored in
    whatever type the file has ("F32" for norms and biases); None follows the file's type.
    """

    name: str
    shape: tuple[int, ...]
    sources: tuple[CheckpointTensor, ...] = ()
    arrange: Arrange | None = None
    compute: Compute | None = None
    constant: Callable[[], np.ndarray] | None = None
    keep: str | None = None

    def elements(self) -> tuple[np.ndarray, str]:
        """The arranged elements as (rows, row elements), not yet computed on, and their dtype in the checkpoint.

        A view of the mapped file where nothing moves. ConversionError when they are not of ``shape``.
        """
        array, dtype = self._arranged()
        if array.shape != self.shape:
            raise ConversionError(
                f"the tensor {self.name} should have the shape {self.shape} and its source has {array.shape}: the "
                f"checkpoint does not fit its config.json"
            )
        return array.reshape(self.num_rows, self.row_elements), dtype

    def _arranged(self) -> tuple[np.ndarray, str]:
        if self.constant is not None:
            return np.asarray(self.constant(), np.float32), "F32"
        dtypes = {source.dtype for source in self.sources}
        dtype = dtypes.pop() if len(dtypes) == 1 else "F32"
        arrays = [source.float32() if dtypes else source.bits() for source in self.sources]
        return (self.arrange(*arrays) if self.arrange else arrays[0]), dtype

    def values(self, elements: np.ndarray, dtype: str) -> np.ndarray:
        """Rows of ``elements`` in float32, computed on. What overflows is infinite, without a warning."""
        values = to_float32(np.ascontiguousarray(elements), dtype)
        if self.compute is None:
            return values
        with np.errstate(all="ignore"):
            return np.ascontiguousarray(self.compute(values), np.float32)

    def float32(self) -> np.ndarray:
        """The whole tensor, exactly as the source says it is: what a proof compares with."""
        blocks = [block for _, block in self.float32_rows()]
        return (np.concatenate(blocks) if blocks else np.empty(0, np.float32)).reshape(self.shape)

    def float32_rows(self, max_elements: int = CHUNK_ELEMENTS) -> Iterator[tuple[slice, np.ndarray]]:
        """The same a few rows at a time: which rows, and their values as (rows, row elements)."""
        elements, dtype = self.elements()
        for rows in row_chunks(self.num_rows, self.row_elements, max_elements):
            yield rows, self.values(elements[rows], dtype)

    def release(self) -> None:
        """Give the mapped pages of its sources back."""
        for source in self.sources:
            source.release()


@dataclass(frozen=True)
class ModelPlan:
    """A whole file. ``architecture`` is GGUF's name of it; ``tensors`` stand in the order of the file.

    ``metadata`` has every key but ``general.file_type`` and ``general.quantization_version``, which the writer
    adds. ``notes`` tell a user what is not quite as in the checkpoint, and what that costs.
    """

    architecture: str
    metadata: dict[str, Value]
    tensors: list[TensorPlan]
    notes: list[str] = field(default_factory=list)


def row_chunks(num_rows: int, row_elements: int, max_elements: int = CHUNK_ELEMENTS) -> Iterator[slice]:
    """Cut rows into slices of at most ``max_elements`` elements, and of one row at least."""
    step = max(1, max_elements // max(row_elements, 1))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))
