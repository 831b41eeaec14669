"""Read a safetensors file: tensors that are views of the mapped file.

Its header is read and checked by the runtime, so a damaged file ends in one ConversionError.
"""

import mmap
from math import prod
from pathlib import Path

import numpy as np

from ...runtime.errors import ConversionError
from ...runtime.safetensors_header import read_tensors
from .dtypes import STORAGE, to_float32

_BITS = {dtype: 8 * storage.itemsize for dtype, storage in STORAGE.items()}


class CheckpointTensor:
    """One tensor, not read yet. ``shape`` is in numpy's order, ``dtype`` is safetensors' name of it."""

    __slots__ = ("_map", "_start", "dtype", "name", "shape")

    def __init__(self, name: str, dtype: str, shape: tuple[int, ...], mapped: mmap.mmap, start: int) -> None:
        self.name = name
        self.dtype = dtype
        self.shape = shape
        self._map = mapped
        self._start = start

    def __repr__(self) -> str:
        return f"CheckpointTensor({self.name!r}, {self.dtype}, {self.shape})"

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * STORAGE[self.dtype].itemsize

    def bits(self) -> np.ndarray:
        """A read-only view of the file: bfloat16 as uint16, 8-bit floats as uint8, the others as they are."""
        flat = np.frombuffer(self._map, STORAGE[self.dtype], prod(self.shape), self._start)
        return flat.reshape(self.shape)

    def float32(self) -> np.ndarray:
        """The values; a copy unless they are float32 already."""
        return to_float32(self.bits(), self.dtype)

    def release(self, start: int = 0, stop: int | None = None) -> None:
        """Give mapped pages back, of all bytes or of those from ``start`` to ``stop``; they can be read again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            begin = (self._start + start) // mmap.PAGESIZE * mmap.PAGESIZE
            end = self._start + (self.num_bytes if stop is None else stop)
            if end > begin:
                self._map.madvise(mmap.MADV_DONTNEED, begin, end - begin)


def read_safetensors(path: Path) -> dict[str, CheckpointTensor]:
    """The tensors of one file by name. ConversionError when it is none, is damaged or is cut short."""
    tensors = read_tensors(path, dtypes=_BITS, error=ConversionError)
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise ConversionError(f"cannot read {path}: {error}") from error
    return {
        name: CheckpointTensor(name, tensor.dtype, tensor.shape, mapped, tensor.start)
        for name, tensor in tensors.items()
    }
