"""Write safetensors files: a header that says where each tensor lies, then their bytes, streamed.

Format: the header's length as a 64-bit number, the header as JSON filled up with spaces to a multiple of eight bytes,
the tensors without gaps. Source: the README of the safetensors project.
"""

import json
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np

from ...runtime.errors import ConversionError
from ..gguf.encode import MAX_F16, encode, largest
from .tensors import OutTensor

SHARD_BYTES = 5_000_000_000
INDEX = "model.safetensors.index.json"
_ELEMENT_BYTES = {"BF16": 2, "F16": 2, "F32": 4}


def write_shards(
    folder: Path, tensors: Sequence[OutTensor], dtype: str, advance: Callable[[int], None], max_bytes: int = SHARD_BYTES
) -> None:
    """``model.safetensors``, or numbered parts with an index when it would be larger than ``max_bytes``.

    ``advance`` hears how many bytes of the source have been read. ConversionError when F16 cannot hold a value.
    """
    shards = _shards(tensors, dtype, max_bytes)
    names = ["model.safetensors"] if len(shards) == 1 else _part_names(len(shards))
    for name, shard in zip(names, shards, strict=True):
        _write_file(folder / name, shard, dtype, advance)
    if len(shards) > 1:
        total = sum(_num_bytes(tensor, dtype) for tensor in tensors)
        places = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def total_bytes(tensors: Sequence[OutTensor], dtype: str) -> int:
    """What the tensors take on disk."""
    return sum(_num_bytes(tensor, dtype) for tensor in tensors)


def _part_names(count: int) -> list[str]:
    return [f"model-{part:05}-of-{count:05}.safetensors" for part in range(1, count + 1)]


def _shards(tensors: Sequence[OutTensor], dtype: str, max_bytes: int) -> list[list[OutTensor]]:
    shards: list[list[OutTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        size = _num_bytes(tensor, dtype)
        if shards[-1] and filled + size > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += size
    return shards


def _num_bytes(tensor: OutTensor, dtype: str) -> int:
    return prod(tensor.shape) * _ELEMENT_BYTES[dtype]


def _write_file(path: Path, tensors: Sequence[OutTensor], dtype: str, advance: Callable[[int], None]) -> None:
    with path.open("wb") as file:
        file.write(_header(tensors, dtype))
        for tensor in tensors:
            for chunk in tensor.chunks():
                file.write(_encoded(tensor.name, chunk, dtype))
            tensor.source.release()
            advance(tensor.source_bytes)


def _header(tensors: Sequence[OutTensor], dtype: str) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + _num_bytes(tensor, dtype)
        entries[tensor.name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return pack("<Q", len(text)) + text


def _encoded(name: str, values: np.ndarray, dtype: str) -> bytes:
    if dtype == "F16" and abs(largest(values)) > MAX_F16:
        raise ConversionError(f"the tensor {name} has the value {largest(values):g}, too large for F16: use hf:BF16")
    return encode(np.ascontiguousarray(values), dtype).tobytes()
