"""Read a safetensors file: a checked header, and tensors that are views of the mapped file.

The file is the length of the header (8 bytes, little-endian), the header as JSON (a name to dtype, shape and where
the data starts and ends, counted from the end of the header), and the data. Source: the format's description in
the safetensors project's README. As there, the data must be covered completely and once.

Nothing is believed before it is checked, so a damaged file ends in one ConversionError.
"""

import json
import mmap
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from ...runtime.errors import ConversionError
from .dtypes import STORAGE, to_float32

_LFS_POINTER = b"version https://git-lfs"
MAX_HEADER_BYTES = 100_000_000
"""The limit of the reference implementation."""
MAX_DIMS = 8
_LENGTH_BYTES = 8


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
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:  # mmap's word for it
        raise ConversionError(f"{path} is empty: download it again") from error
    except OSError as error:
        raise ConversionError(f"cannot read {path}: {error.strerror}") from error
    return _Header(path, mapped).tensors()


class _Header:
    """The header of one file, on its way from bytes to tensors."""

    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        self._path = path
        self._map = mapped

    def tensors(self) -> dict[str, CheckpointTensor]:
        entries, data_start = self._entries()
        found: dict[str, CheckpointTensor] = {}
        spans: list[tuple[int, int, str]] = []
        for name, entry in entries.items():
            dtype, shape, begin, end = self._checked(name, entry)
            found[name] = CheckpointTensor(name, dtype, shape, self._map, data_start + begin)
            spans.append((begin, end, name))
        self._check_spans(spans, len(self._map) - data_start)
        return found

    def _damaged(self, what: str) -> ConversionError:
        return ConversionError(f"{self._path} is damaged: {what}; download it again")

    def _entries(self) -> tuple[dict[str, Any], int]:
        """The header's JSON without its free-form metadata, and where the data starts."""
        if self._map[: len(_LFS_POINTER)] == _LFS_POINTER:
            raise ConversionError(f"{self._path} is a Git LFS pointer and not the file itself: run `git lfs pull`")
        length = int.from_bytes(self._map[:_LENGTH_BYTES], "little")
        data_start = _LENGTH_BYTES + length
        if length > MAX_HEADER_BYTES:
            raise ConversionError(f"{self._path} is no safetensors file: its header would be {length:,} bytes long")
        if data_start > len(self._map):
            raise self._truncated(data_start)
        try:
            entries = json.loads(self._map[_LENGTH_BYTES:data_start], object_pairs_hook=self._without_duplicates)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"its header is no JSON ({error})") from error
        if not isinstance(entries, dict):
            raise self._damaged("its header is no JSON object")
        entries.pop("__metadata__", None)
        return entries, data_start

    def _truncated(self, needed: int) -> ConversionError:
        return ConversionError(
            f"{self._path} is truncated: it needs {needed:,} bytes and has {len(self._map):,}; download it again"
        )

    def _without_duplicates(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise self._damaged(f"{shown(twice)} is in its header twice")
        return values

    def _checked(self, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
        """A tensor's dtype, shape, and where its data begins and ends."""
        if not isinstance(entry, dict):
            raise self._damaged(f"the tensor {shown(name)} is described by {shown(entry)}")
        dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        if not isinstance(dtype, str) or dtype not in STORAGE:
            raise ConversionError(
                f"{self._path}: the tensor {shown(name)} is of dtype {shown(dtype)}, which cannot be read (known: "
                f"{', '.join(STORAGE)}): save the checkpoint as bfloat16"
            )
        if not _are_sizes(shape) or len(shape) > MAX_DIMS or not _are_sizes(offsets) or len(offsets) != 2:
            raise self._damaged(f"the tensor {shown(name)} has shape {shown(shape)} and offsets {shown(offsets)}")
        num_bytes = prod(shape) * STORAGE[dtype].itemsize
        if prod(max(size, 1) for size in shape) >= 1 << 59 or offsets[1] - offsets[0] != num_bytes:
            raise self._damaged(
                f"the tensor {shown(name)} of {dtype} and shape {shown(shape)} takes the bytes {shown(offsets)}"
            )
        return dtype, tuple(shape), offsets[0], offsets[1]

    def _check_spans(self, spans: list[tuple[int, int, str]], data_bytes: int) -> None:
        """The tensors must cover the data, each byte once."""
        covered = 0
        for begin, end, name in sorted(spans):
            if begin != covered:
                what = "overlaps the one before it" if begin < covered else "leaves a gap before it"
                raise self._damaged(f"the tensor {shown(name)} {what} (at byte {begin} of the data, not {covered})")
            covered = end
        if covered > data_bytes:
            raise self._truncated(len(self._map) - data_bytes + covered)
        if covered < data_bytes:
            raise self._damaged(f"{data_bytes - covered:,} bytes at its end belong to no tensor")


def _are_sizes(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values)


def shown(value: Any) -> str:
    """Something out of the file, safe and short enough for a one-line message."""
    try:
        text = repr(value)
    except RecursionError:
        text = "something deeply nested"
    return text if len(text) <= 80 else text[:77] + "..."
