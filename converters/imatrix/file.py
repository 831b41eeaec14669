"""Importance matrices in files: written as llama-imatrix writes them, in GGUF, and read in its older format as well.

For each weight a file holds the sum of the squared activations of each column, ``NAME.in_sum2``, and over how many
tokens, ``NAME.counts``; a weight with several experts has a row and a count for each. Source: tools/imatrix/imatrix.cpp
and common/imatrix-loader.cpp of llama.cpp.
"""

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np

from ...runtime.errors import ConversionError, ModelError
from ..gguf.header import aligned, pack_header, place_tensors
from ..gguf.plan import Value
from ..gguf.reader import GGUFTensors

SUMS, COUNTS = ".in_sum2", ".counts"
_KIND = "imatrix"
_I32 = Struct("<i")


@dataclass(frozen=True, slots=True)
class Entry:
    """One weight: ``sums`` float32 of shape (experts, columns), ``counts`` of shape (experts,), 1 expert if dense."""

    sums: np.ndarray
    counts: np.ndarray

    def mean_squares(self) -> np.ndarray:
        """What a quantizer wants: float32, all experts one after the other; 1 for an expert that saw no token."""
        counts = self.counts.astype(np.float32)[:, None]
        means = np.where(counts > 0, self.sums / np.maximum(counts, 1), 1)
        return np.ascontiguousarray(means, np.float32).reshape(-1)


@dataclass(frozen=True, slots=True)
class Imatrix:
    """A file's contents. ``datasets`` name the texts; ``facts`` are further metadata, of no meaning to llama.cpp."""

    entries: Mapping[str, Entry]
    datasets: tuple[str, ...] = ()
    chunk_count: int = 0
    chunk_size: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


def write_imatrix(path: Path, imatrix: Imatrix) -> None:
    """Write it under another name and move it to ``path``. ConversionError when the disk does not take it."""
    arrays: dict[str, np.ndarray] = {}
    for name, entry in sorted(imatrix.entries.items()):
        arrays[name + SUMS] = entry.sums.astype(np.float32)
        arrays[name + COUNTS] = entry.counts.astype(np.float32)[:, None]
    slots = place_tensors((name, array.shape, "F32") for name, array in arrays.items())
    metadata: dict[str, Value] = {
        "general.type": _KIND,
        "imatrix.datasets": list(imatrix.datasets),
        "imatrix.chunk_count": imatrix.chunk_count,
        "imatrix.chunk_size": imatrix.chunk_size,
        **imatrix.facts,
    }
    data = bytearray(pack_header(metadata, slots))
    for array in arrays.values():
        data += array.tobytes().ljust(aligned(array.nbytes), b"\0")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise ConversionError(f"cannot write {path}: {error.strerror}; make room, or choose another place") from error


def read_imatrix(path: Path) -> Imatrix:
    """The matrix in ``path``. ConversionError when there is none."""
    try:
        with path.open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
        imatrix = _read_gguf(path) if is_gguf else _read_legacy(path, path.read_bytes())
    except OSError as error:
        raise ConversionError(f"cannot read the importance matrix {path}: {error.strerror}") from error
    except ModelError as error:
        raise ConversionError(str(error)) from error
    for name, entry in imatrix.entries.items():
        for values in (entry.sums, entry.counts):
            if not np.isfinite(values).all() or values.min() < 0:
                raise _damaged(path, f"a negative number, an infinity or NaN at {name!r}")
    return imatrix


def _read_gguf(path: Path) -> Imatrix:
    file = GGUFTensors(path)
    metadata = file.metadata
    if (kind := metadata.get("general.type")) != _KIND:
        raise ConversionError(f"{path} is a GGUF file of type {kind!r} and no importance matrix: make one of the model")
    names = dict.fromkeys(name.removesuffix(SUMS).removesuffix(COUNTS) for name in file)
    if not names:
        raise _damaged(path, "no tensors")
    facts = {key: metadata[key] for key in metadata if not key.startswith(("general.", "imatrix."))}
    return Imatrix(
        entries={name: _entry(file, name) for name in names},
        datasets=tuple(metadata.get("imatrix.datasets", ())),
        chunk_count=metadata.get("imatrix.chunk_count", 0),
        chunk_size=metadata.get("imatrix.chunk_size", 0),
        facts=facts,
    )


def _entry(file: GGUFTensors, name: str) -> Entry:
    if name + SUMS not in file or name + COUNTS not in file:
        raise _damaged(file.path, f"only half of what belongs to {name!r}")
    sums, counts = file[name + SUMS], file[name + COUNTS]
    if (sums.type, counts.type) != ("F32", "F32"):
        raise _damaged(file.path, f"{name!r} not in float32")
    values, tokens = sums.float32(), counts.float32().reshape(-1)
    if not tokens.size or not values.size or values.size % tokens.size:
        raise _damaged(file.path, f"{values.size} sums for {tokens.size} counts at {name!r}")
    return Entry(values.reshape(tokens.size, -1).copy(), np.rint(tokens))


def _read_legacy(path: Path, data: bytes) -> Imatrix:
    """The format before GGUF: per weight the mean squares times a number of calls, and that number."""
    try:
        (num_entries,), position = _I32.unpack_from(data), _I32.size
        entries: dict[str, Entry] = {}
        if not 0 < num_entries <= len(data) // 13:
            raise struct.error
        for _ in range(num_entries):
            name, position = _legacy_string(data, position)
            calls, num_values = struct.unpack_from("<ii", data, position)
            if num_values < 1:
                raise ValueError(num_values)
            values = np.frombuffer(data, "<f4", num_values, position + 8).copy()
            position += 8 + values.nbytes
            entries[name] = Entry(values.reshape(1, -1), np.array([max(calls, 1)], np.float32))
        chunk_count = _I32.unpack_from(data, position)[0] if len(data) >= position + 4 else 0
        dataset = _legacy_string(data, position + 4)[0] if len(data) >= position + 8 else ""
    except (struct.error, ValueError) as error:
        raise ConversionError(f"{path} is no importance matrix, neither in GGUF nor in the older format") from error
    return Imatrix(entries, (dataset,) if dataset else (), max(chunk_count, 0))


def _legacy_string(data: bytes, position: int) -> tuple[str, int]:
    """A string after its length, and where it ends."""
    (length,) = _I32.unpack_from(data, position)
    end = position + _I32.size + length
    if length < 0 or end > len(data):
        raise ValueError(length)
    return data[position + _I32.size : end].decode(), end


def _damaged(path: Path, what: str) -> ConversionError:
    return ConversionError(f"the importance matrix {path} is damaged, it has {what}: make it again")
