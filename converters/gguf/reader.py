"""Read the tensors of a GGUF file back as float32, by ggml's own routines, a few rows at a time if wanted.

The files are mapped, so a tensor costs memory only while it is looked at.
"""

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ...runtime.errors import ConversionError
from ...runtime.gguf_files import read_parts
from ...runtime.gguf_header import GGUFHeader
from ..checkpoint.dtypes import STORAGE, to_float32
from . import ggml
from .plan import CHUNK_ELEMENTS, Rows, row_chunks


class GGUFTensor(Rows):
    """One tensor. ``shape`` is in numpy's order."""

    __slots__ = ("_map", "_start", "name", "shape", "type")

    def __init__(self, name: str, shape: tuple[int, ...], type_name: str, mapped: mmap.mmap, start: int) -> None:
        self.name = name
        self.shape = shape
        self.type = type_name
        self._map = mapped
        self._start = start

    @property
    def num_bytes(self) -> int:
        return self.num_rows * ggml.row_bytes(self.type, self.row_elements)

    def raw(self) -> np.ndarray:
        """The stored bytes, (rows, bytes of a row): a read-only view of the file."""
        flat = np.frombuffer(self._map, np.uint8, self.num_bytes, self._start)
        return flat.reshape(self.num_rows, ggml.row_bytes(self.type, self.row_elements))

    def float32(self, rows: slice | None = None) -> np.ndarray:
        """The values of the whole tensor; with ``rows`` (a step of 1) those rows as (rows, row elements)."""
        raw = self.raw() if rows is None else self.raw()[rows]
        shape = self.shape if rows is None else (len(raw), self.row_elements)
        if self.type in STORAGE and self.type != "F16":  # ggml is the faster one there
            return to_float32(raw.view(STORAGE[self.type]), self.type).reshape(shape)
        return ggml.dequantize(raw, self.type).reshape(shape)

    def float32_rows(self, max_elements: int = CHUNK_ELEMENTS) -> Iterator[tuple[slice, np.ndarray]]:
        """The values a few rows at a time: which rows, and they as (rows, row elements)."""
        for rows in row_chunks(self.num_rows, self.row_elements, max_elements):
            yield rows, self.float32(rows)

    def release(self) -> None:
        """Give its mapped pages back."""
        if hasattr(mmap, "MADV_DONTNEED") and self.num_bytes:
            begin = self._start // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, begin, self._start + self.num_bytes - begin)


class GGUFTensors(Mapping[str, GGUFTensor]):
    """All tensors of a model by name, of all its parts if it is split, in the order of the file.

    ``metadata`` is that of the first part. ModelError when a file is none, is damaged or cut short.
    """

    def __init__(self, path: Path) -> None:
        headers = read_parts(path)
        self.path = path
        self.metadata = headers[0].metadata
        self._tensors = {tensor.name: tensor for header in headers for tensor in _tensors(header)}

    def __getitem__(self, name: str) -> GGUFTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _tensors(header: GGUFHeader) -> Iterator[GGUFTensor]:
    try:
        with header.path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise ConversionError(f"cannot read {header.path}: {error}") from error
    for tensor in header.tensors:
        start = header.data_start + tensor.offset
        yield GGUFTensor(tensor.name, tuple(reversed(tensor.shape)), tensor.type, mapped, start)
