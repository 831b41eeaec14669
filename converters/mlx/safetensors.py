"""Write mlx arrays as safetensors, one after the other: each is computed, written and forgotten.

Shapes are known before anything is computed, so the header comes first, as the format wants it. mlx's own writer
computes a whole file of up to five gigabytes in memory before it writes, and orders the tensors as it likes.
"""

import json
from collections.abc import Callable
from pathlib import Path
from struct import pack
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import mlx.core as mx

SHARD_BYTES = 5_000_000_000
INDEX = "model.safetensors.index.json"
_METADATA = {"format": "mlx"}


def write_arrays(
    folder: Path,
    arrays: dict[str, "mx.array"],
    written: Callable[[str], None],
    num_parameters: int,
) -> None:
    """``model.safetensors`` or numbered parts of at most ``SHARD_BYTES``, and the index that mlx-lm writes with either.

    ``arrays`` is emptied on the way, so that nothing computed stays; ``written`` hears the name of each.
    """
    shards = _shards({name: array.nbytes for name, array in arrays.items()}, SHARD_BYTES)
    total = sum(array.nbytes for array in arrays.values())
    count = len(shards)
    names = [f"model-{part:05}-of-{count:05}.safetensors" for part in range(1, count + 1)]
    names = ["model.safetensors"] if count == 1 else names
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, {key: arrays.pop(key) for key in shard}, written)
    places = sorted((key, name) for name, shard in zip(names, shards, strict=True) for key in shard)
    index = {"metadata": {"total_size": total, "total_parameters": num_parameters}, "weight_map": dict(places)}
    (folder / INDEX).write_text(json.dumps(index, indent=4) + "\n", "utf-8")


def _shards(sizes: dict[str, int], max_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _write_shard(path: Path, arrays: dict[str, "mx.array"], written: Callable[[str], None]) -> None:
    with path.open("wb") as file:
        file.write(_header(arrays))
        for name in list(arrays):
            file.write(_bytes(arrays.pop(name)))
            written(name)


def _header(arrays: dict[str, "mx.array"]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": _METADATA}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        entries[name] = {"dtype": _dtype_name(array), "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return pack("<Q", len(text)) + text


def _dtype_name(array: "mx.array") -> str:
    import mlx.core as mx

    names = {
        mx.bfloat16: "BF16",
        mx.float16: "F16",
        mx.float32: "F32",
        mx.uint32: "U32",
        mx.uint8: "U8",
        mx.int32: "I32",
        mx.int64: "I64",
    }
    return names[array.dtype]


def _bytes(array: "mx.array") -> memoryview:
    """The array's bytes in row order, computed now. numpy has no bfloat16, so that goes as the integers of its bits."""
    import mlx.core as mx

    bits = array.view(mx.uint16) if array.dtype == mx.bfloat16 else array
    return np.ascontiguousarray(np.array(bits, copy=False)).data.cast("B")
