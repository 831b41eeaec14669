"""Pack the header of a GGUF file: metadata and tensor descriptions to bytes, a vocabulary in one join.

Layout as in runtime/gguf_header.py, which reads it. The ``gguf`` package can write headers too, one call a string:
for 400,000 of them it takes longer than our whole conversion of a small model.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from struct import Struct
from typing import Any

import numpy as np

from ...runtime.errors import ConversionError
from ...runtime.gguf_header import MAX_DIMS, MAX_TENSOR_NAME_BYTES
from ...runtime.gguf_metadata import ARRAY, STRING
from ...runtime.safetensors_header import shown
from .ggml import TYPE_IDS, row_bytes
from .plan import Value

ALIGNMENT = 32
"""Every tensor starts at a multiple of it, in bytes; the format's default."""
VERSION = 3

_U32, _U64, _F32 = Struct("<I"), Struct("<Q"), Struct("<f")
_UINT32, _FLOAT32, _BOOL = 4, 6, 7
_NUMBER_CODES = {"u1": 0, "i1": 1, "u2": 2, "i2": 3, "u4": 4, "i4": 5, "f4": 6, "b1": 7, "u8": 10, "i8": 11, "f8": 12}
"""GGUF's value types by numpy's kind and size."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor's place: its type, and where its data starts and how long it is, from the start of the data."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size_bytes: int


def place_tensors(tensors: Iterable[tuple[str, tuple[int, ...], str]]) -> list[Slot]:
    """Places one after the other for (name, shape in numpy's order, type). ConversionError: GGUF cannot name it."""
    slots: dict[str, Slot] = {}
    end = 0
    for name, shape, type_name in tensors:
        if name in slots or len(name.encode()) > MAX_TENSOR_NAME_BYTES or len(shape) > MAX_DIMS:
            why = "is planned twice" if name in slots else f"of shape {shape} has too long a name or shape for GGUF"
            raise ConversionError(f"the tensor {name!r} {why}")
        slots[name] = Slot(name, shape, type_name, end, row_bytes(type_name, prod(shape)))
        end = aligned(end + slots[name].size_bytes)
    return list(slots.values())


def pack_header(metadata: dict[str, Value], slots: Sequence[Slot]) -> bytes:
    """All that stands before the data, filled up to where the data starts."""
    parts = [b"GGUF", _U32.pack(VERSION), _U64.pack(len(slots)), _U64.pack(len(metadata))]
    for key, value in metadata.items():
        parts += _string(key), _packed_value(key, value)
    for slot in slots:
        dims = b"".join(_U64.pack(size) for size in reversed(slot.shape))
        place = _U32.pack(TYPE_IDS[slot.type]) + _U64.pack(slot.offset)
        parts += _string(slot.name), _U32.pack(len(slot.shape)), dims, place
    header = b"".join(parts)
    return header.ljust(aligned(len(header)), b"\0")


def aligned(position: int) -> int:
    """The next multiple of the alignment."""
    return (position + ALIGNMENT - 1) & -ALIGNMENT


def _packed_value(key: str, value: Any) -> bytes:
    """A value after the code of its type. ConversionError names the key of what cannot be stored."""
    try:
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            return _U32.pack(ARRAY) + _U32.pack(STRING) + _U64.pack(len(value)) + _strings(value)
        if isinstance(value, (np.ndarray, np.generic, list, tuple)):
            return _packed_numpy(np.asarray(value))
        if isinstance(value, str):
            return _U32.pack(STRING) + _string(value)
        if isinstance(value, bool):
            return _U32.pack(_BOOL) + bytes([value])
        if isinstance(value, int):
            return _U32.pack(_UINT32) + _U32.pack(value)
        return _U32.pack(_FLOAT32) + _F32.pack(value)
    except (ValueError, TypeError, OverflowError, KeyError, struct.error) as error:
        raise ConversionError(f"the metadata key {key} cannot hold {shown(value)} ({error})") from error


def _packed_numpy(array: np.ndarray) -> bytes:
    code = _NUMBER_CODES[f"{array.dtype.kind}{array.dtype.itemsize}"]
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    if array.ndim == 0:
        return _U32.pack(code) + data
    return _U32.pack(ARRAY) + _U32.pack(code) + _U64.pack(array.size) + data


def _string(text: str) -> bytes:
    data = text.encode()
    return _U64.pack(len(data)) + data


def _strings(texts: Sequence[str]) -> bytes:
    """Many strings at once: the lengths repeat, so each is packed once."""
    encoded = [text.encode() for text in texts]
    lengths = [_U64.pack(length) for length in range(max(map(len, encoded), default=0) + 1)]
    return b"".join([lengths[len(data)] + data for data in encoded])
