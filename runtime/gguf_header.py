"""Read the header of a GGUF file: its metadata and what tensors it holds, none of their data.

A header is the magic ``GGUF``, a version, the number of tensors and of key-value pairs, the pairs, the tensor
descriptions; the data follows at the next multiple of the alignment. Numbers are little-endian; a string is
its length and its bytes. Source: the GGUF specification (docs/gguf.md of the ggml project).

Nothing in the file is believed before it is checked against the size of the file, and what llama.cpp would
refuse is refused here with a reason, so a damaged file ends in one ModelError.
"""

import mmap
import os
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from struct import Struct
from typing import Any

from .errors import ModelError
from .ggml_types import GGML_TYPES
from .gguf_metadata import ARRAY, NUMBERS, STRING, U64, Metadata, PackedArray, skip_strings

MAX_HEADER_BYTES = 1 << 28
"""Real headers are a few megabytes; a larger one is damage, and is not searched to its end."""
MAX_DIMS = 4
MAX_TENSOR_NAME_BYTES = 63
SUPPORTED_VERSIONS = (2, 3)

_U32 = Struct("<I")
_UINT32 = 4
_MIN_PAIR_BYTES, _MIN_TENSOR_BYTES = 14, 24


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor. ``shape`` is in ggml's order: the dimension that is contiguous in memory comes first.

    ``offset`` counts from the start of the data section.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size_bytes: int

    @property
    def parameters(self) -> int:
        """The number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """What a GGUF file says before its data starts. ``data_start`` is where the offsets of tensors count from."""

    path: Path
    version: int
    metadata: Metadata
    tensors: list[TensorInfo]
    file_bytes: int
    alignment: int
    data_start: int


def read_header(path: str | os.PathLike[str]) -> GGUFHeader:
    """The checked header of one GGUF file. ModelError when it is none, is damaged or is cut short."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            file_bytes = os.fstat(file.fileno()).st_size
            if file_bytes < len(b"GGUF") + 20:
                raise ModelError(f"{path} is no GGUF file: it has only {file_bytes} bytes")
            with mmap.mmap(file.fileno(), min(file_bytes, MAX_HEADER_BYTES), access=mmap.ACCESS_READ) as data:
                return _HeaderReader(path, data, file_bytes).read()
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


class _HeaderReader:
    """A cursor over the file that turns whatever does not add up into a ModelError."""

    def __init__(self, path: Path, data: mmap.mmap, file_bytes: int) -> None:
        self._path = path
        self._data = data
        self._file_bytes = file_bytes
        self._position = 0

    def read(self) -> GGUFHeader:
        try:
            version = self._read_version()
            num_tensors = self._read_count("tensors", _MIN_TENSOR_BYTES)
            num_pairs = self._read_count("metadata keys", _MIN_PAIR_BYTES)
            values = self._read_pairs(num_pairs)
            tensors = self._read_tensors(num_tensors)
        except (struct.error, OverflowError) as error:
            # unpacking past the end, or at a position no file can have
            raise self._damaged("its header runs past the end of the file") from error
        alignment = values.get("general.alignment", 32)
        start = _align(self._position, alignment)
        self._check_data(tensors, start, alignment)
        metadata = Metadata(self._data[: self._position], values)
        return GGUFHeader(self._path, version, metadata, tensors, self._file_bytes, alignment, start)

    def _damaged(self, what: str) -> ModelError:
        return ModelError(f"{self._path} is damaged or incomplete: {what}; download it again")

    def _unpack(self, layout: Struct) -> Any:
        (value,) = layout.unpack_from(self._data, self._position)
        self._position += layout.size
        return value

    def _read_version(self) -> int:
        magic = self._data[:4]
        if magic != b"GGUF":
            raise ModelError(f"{self._path} is no GGUF file: it starts with {magic!r} instead of b'GGUF'")
        self._position = len(magic)
        version = self._unpack(_U32)
        if version in SUPPORTED_VERSIONS:
            return version
        if version and version & 0xFFFF == 0:
            raise ModelError(
                f"{self._path} is a GGUF file for big-endian machines: download the little-endian one, or "
                f"convert it with gguf-convert-endian"
            )
        raise ModelError(
            f"{self._path} is GGUF version {version}; versions 2 and 3 can be read: convert the model again"
        )

    def _read_count(self, what: str, min_bytes: int) -> int:
        count = self._unpack(U64)
        if count * min_bytes > len(self._data) - self._position:
            raise self._damaged(f"it says it has {count} {what}, more than fit into it")
        return count

    def _read_string(self) -> str:
        start = self._position + U64.size
        self._position = end = start + U64.unpack_from(self._data, self._position)[0]
        if end > len(self._data):
            raise self._damaged(f"a string of {end - start} bytes runs past the end of the file")
        return self._data[start:end].decode("utf-8", "replace")

    def _read_pairs(self, num_pairs: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for _ in range(num_pairs):
            key = self._read_string()
            if not key or key in values:
                raise self._damaged(f"the metadata key {_shown(key)} is {'there twice' if key else 'empty'}")
            value_type = self._unpack(_U32)
            values[key] = self._read_value(key, value_type)
            if key == "general.alignment":
                self._check_alignment(value_type, values[key])
        return values

    def _read_value(self, key: str, value_type: int) -> Any:
        if value_type == STRING:
            return self._read_string()
        if value_type == ARRAY:
            return self._step_over_array(key)
        if value_type in NUMBERS:
            return self._unpack(NUMBERS[value_type])
        raise self._damaged(f"the metadata key {_shown(key)} has the unknown value type {value_type}")

    def _step_over_array(self, key: str) -> PackedArray:
        element_type, count = self._unpack(_U32), self._unpack(U64)
        array = PackedArray(element_type, count, self._position)
        if element_type == STRING:
            self._check_fits(key, count * U64.size)
            self._position = skip_strings(self._data, array.start, count)
            self._check_fits(key, 0)
        elif element_type in NUMBERS:
            self._check_fits(key, count * NUMBERS[element_type].size)
            self._position += count * NUMBERS[element_type].size
        else:
            kind = "arrays" if element_type == ARRAY else f"the unknown type {element_type}"
            raise self._damaged(f"the metadata key {_shown(key)} is an array of {kind}")
        return array

    def _check_fits(self, key: str, num_bytes: int) -> None:
        if self._position + num_bytes > len(self._data):
            raise self._damaged(f"the array {_shown(key)} runs past the end of the file")

    def _check_alignment(self, value_type: int, value: Any) -> None:
        if value_type != _UINT32 or value == 0 or value & (value - 1):
            raise self._damaged(f"general.alignment must be a power of two stored as uint32, not {value}")

    def _read_tensors(self, num_tensors: int) -> list[TensorInfo]:
        tensors = [self._read_tensor() for _ in range(num_tensors)]
        names: set[str] = set()
        for tensor in tensors:
            if tensor.name in names:
                raise self._damaged(f"the tensor {_shown(tensor.name)} is there twice")
            names.add(tensor.name)
        return tensors

    def _read_tensor(self) -> TensorInfo:
        start = self._position
        name = self._read_string()
        if self._position - start - U64.size > MAX_TENSOR_NAME_BYTES:
            raise self._damaged(f"a tensor name is longer than {MAX_TENSOR_NAME_BYTES} bytes: {_shown(name)}")
        num_dims = self._unpack(_U32)
        if num_dims > MAX_DIMS:
            raise self._damaged(f"the tensor {_shown(name)} has {num_dims} dimensions, more than {MAX_DIMS}")
        shape = tuple(self._unpack(U64) for _ in range(num_dims))
        type_id = self._unpack(_U32)
        size_bytes = self._tensor_bytes(name, shape, type_id)
        return TensorInfo(name, shape, GGML_TYPES[type_id].name, self._unpack(U64), size_bytes)

    def _tensor_bytes(self, name: str, shape: tuple[int, ...], type_id: int) -> int:
        if type_id not in GGML_TYPES:
            raise ModelError(
                f"{self._path}: the tensor {_shown(name)} has type {type_id}, which ggml does not know "
                f"(any more): convert the model again"
            )
        type_name, block_size, block_bytes = GGML_TYPES[type_id]
        if prod(max(size, 1) for size in shape) >= 1 << 63 or (shape and shape[0] % block_size):
            raise self._damaged(f"the tensor {_shown(name)} cannot be of type {type_name} and shape {shape}")
        return prod(shape) // block_size * block_bytes

    def _check_data(self, tensors: list[TensorInfo], start: int, alignment: int) -> None:
        """Tensors must follow each other without gaps, and the last must end before the file does."""
        end = 0
        for tensor in tensors:
            expected = _align(end, alignment)
            if tensor.offset != expected:
                name = _shown(tensor.name)
                raise self._damaged(f"the data of tensor {name} is at {tensor.offset}, expected at {expected}")
            end = expected + tensor.size_bytes
        if tensors and start + end > self._file_bytes:
            raise ModelError(
                f"{self._path} is truncated: it needs {start + end:,} bytes and has {self._file_bytes:,}; "
                f"download it again"
            )


def _align(position: int, alignment: int) -> int:
    return (position + alignment - 1) & -alignment


def _shown(name: str) -> str:
    """A name out of the file, safe and short enough for a one-line message."""
    return repr(name if len(name) <= 80 else name[:77] + "...")
