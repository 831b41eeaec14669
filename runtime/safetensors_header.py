"""The header of a safetensors file: which tensors it has, and whether it can be true.

The file is the length of the header (8 bytes, little-endian), the header as JSON (a name to dtype, shape and where
the data starts and ends, counted from the end of the header), and the data. Source: the format's description in
the safetensors project's README. As there, the data must be covered completely and once.

Nothing is believed before it is checked, so a damaged file ends in one error. Weights are not read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from .errors import ModelError, TapsterError

DTYPE_BITS: dict[str, int] = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64},
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8},
    **{"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "BF16": 16, "F16": 16, "F32": 32, "F64": 64, "C64": 64},
}
"""The size of an element by the format's name of its dtype."""
MAX_HEADER_BYTES = 100_000_000
"""The limit of the reference implementation."""
MAX_DIMS = 8
_LENGTH_BYTES = 8
_LFS_POINTER = b"version https://git-lfs"
_METADATA = "__metadata__"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file: its shape in numpy's order, and where its bytes are, counted from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int

    @property
    def parameters(self) -> int:
        return prod(self.shape)


def read_tensors(
    path: Path, *, dtypes: Mapping[str, int] = DTYPE_BITS, error: type[TapsterError] = ModelError
) -> dict[str, StoredTensor]:
    """The tensors of one file by name. ``error`` is raised when it is none, is damaged or is cut short, and for a
    dtype that is not among ``dtypes``."""
    header = _Header(path, error)
    return header.tensors(dtypes)


def read_metadata(path: Path) -> dict[str, Any]:
    """The free-form metadata, such as the ``format`` that a library writes. ModelError."""
    found = _Header(path, ModelError).metadata
    return found if isinstance(found, dict) else {}


class _Header:
    """The header of one file, on its way from bytes to tensors."""

    def __init__(self, path: Path, error: type[TapsterError]) -> None:
        self._path = path
        self._error = error
        try:
            with path.open("rb") as file:
                self._file_bytes = file.seek(0, 2)
                file.seek(0)
                self._entries = self._read(file)
        except OSError as cause:
            raise error(f"cannot read {path}: {cause.strerror}") from cause
        self.metadata = self._entries.pop(_METADATA, None)

    def tensors(self, dtypes: Mapping[str, int]) -> dict[str, StoredTensor]:
        found: dict[str, StoredTensor] = {}
        spans: list[tuple[int, int, str]] = []
        for name, entry in self._entries.items():
            dtype, shape, begin, end = self._checked(name, entry, dtypes)
            found[name] = StoredTensor(name, dtype, shape, self._data_start + begin, end - begin)
            spans.append((begin, end, name))
        self._check_spans(spans, self._file_bytes - self._data_start)
        return found

    def _read(self, file: BinaryIO) -> dict[str, Any]:
        """The header's JSON."""
        start = file.read(len(_LFS_POINTER))
        if not start:
            raise self._error(f"{self._path} is empty: download it again")
        if start == _LFS_POINTER:
            raise self._error(f"{self._path} is a Git LFS pointer and not the file itself: run `git lfs pull`")
        length = int.from_bytes(start[:_LENGTH_BYTES], "little")
        self._data_start = _LENGTH_BYTES + length
        if length > MAX_HEADER_BYTES:
            raise self._error(f"{self._path} is no safetensors file: its header would be {length:,} bytes long")
        if self._data_start > self._file_bytes:
            raise self._truncated(self._data_start)
        file.seek(_LENGTH_BYTES)
        try:
            entries = json.loads(file.read(length), object_pairs_hook=self._without_duplicates)
        except (ValueError, RecursionError) as cause:
            raise self._damaged(f"its header is no JSON ({cause})") from cause
        if not isinstance(entries, dict):
            raise self._damaged("its header is no JSON object")
        return entries

    def _damaged(self, what: str) -> TapsterError:
        return self._error(f"{self._path} is damaged: {what}; download it again")

    def _truncated(self, needed: int) -> TapsterError:
        return self._error(
            f"{self._path} is truncated: it needs {needed:,} bytes and has {self._file_bytes:,}; download it again"
        )

    def _without_duplicates(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise self._damaged(f"{shown(twice)} is in its header twice")
        return values

    def _checked(self, name: str, entry: Any, dtypes: Mapping[str, int]) -> tuple[str, tuple[int, ...], int, int]:
        """A tensor's dtype, shape, and where its data begins and ends."""
        if not isinstance(entry, dict):
            raise self._damaged(f"the tensor {shown(name)} is described by {shown(entry)}")
        dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        if not isinstance(dtype, str) or dtype not in dtypes:
            raise self._error(
                f"{self._path}: the tensor {shown(name)} is of dtype {shown(dtype)}, which cannot be read (known: "
                f"{', '.join(dtypes)}): save the checkpoint as bfloat16"
            )
        if not _are_sizes(shape) or len(shape) > MAX_DIMS or not _are_sizes(offsets) or len(offsets) != 2:
            raise self._damaged(f"the tensor {shown(name)} has shape {shown(shape)} and offsets {shown(offsets)}")
        num_bytes = prod(shape) * dtypes[dtype] // 8
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
            raise self._truncated(self._file_bytes - data_bytes + covered)
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
