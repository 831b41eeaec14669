"""Read an MLX folder back, a few rows at a time, to see what became of the checkpoint's tensors."""

from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import ConversionError
from ..checkpoint.json_file import read_json
from ..checkpoint.safetensors import CheckpointTensor
from ..checkpoint.shards import read_shards
from ..folder import ArtifactTensor

_PACKED_BITS = 32
_PARTS = (".scales", ".biases")


def read_mlx(folder: Path) -> dict[str, ArtifactTensor]:
    """Every tensor by the name that it has in the checkpoint. ConversionError when the folder is damaged."""
    quantization = read_json(folder / "config.json").get("quantization") or {}
    stored = read_shards(folder)
    packed = {name.removesuffix(".scales") for name in stored if name.endswith(".scales")}
    tensors: dict[str, ArtifactTensor] = {}
    for name, tensor in stored.items():
        path, _, kind = name.rpartition(".")
        if path not in packed:
            tensors[name] = ArtifactTensor(
                (name,), tensor.shape, tensor.dtype.lower(), tensor.num_bytes, partial(_plain_rows, tensor)
            )
        elif kind == "weight":
            tensors[name] = _quantized(path, stored, _parameters(quantization, path))
        elif f".{kind}" not in _PARTS:  # a layer's own bias, which is no part of its packed weight
            tensors[name] = ArtifactTensor(
                (name,), tensor.shape, tensor.dtype.lower(), tensor.num_bytes, partial(_plain_rows, tensor)
            )
    return tensors


def type_label(parameters: Mapping[str, Any]) -> str:
    """What a packed layer is called: ``4bit-g64``, ``mxfp4``."""
    mode = parameters["mode"]
    return f"{parameters['bits']}bit-g{parameters['group_size']}" if mode == "affine" else mode


def _parameters(quantization: Mapping[str, Any], path: str) -> dict[str, Any]:
    """How one layer is packed: by its own entry, else as all others are."""
    own = quantization.get(path)
    found = own if isinstance(own, dict) else quantization
    try:
        return {"group_size": found["group_size"], "bits": found["bits"], "mode": found.get("mode", "affine")}
    except KeyError as error:
        raise ConversionError(
            f"config.json has a quantization without {error}: convert the checkpoint again"
        ) from error


def _quantized(path: str, stored: Mapping[str, CheckpointTensor], parameters: dict[str, Any]) -> ArtifactTensor:
    parts = [stored[f"{path}{part}"] for part in (".weight", *_PARTS) if f"{path}{part}" in stored]
    words = parts[0].shape
    shape = (*words[:-1], words[-1] * _PACKED_BITS // parameters["bits"])
    num_bytes = sum(part.num_bytes for part in parts)
    read = partial(_dequantized_rows, parts, parameters)
    return ArtifactTensor((f"{path}.weight",), shape, type_label(parameters), num_bytes, read)


def _plain_rows(tensor: CheckpointTensor, rows: slice) -> np.ndarray:
    from ..checkpoint.dtypes import to_float32

    values = to_float32(np.array(tensor.bits()[rows]), tensor.dtype)
    _release(tensor, rows)
    return values


def _dequantized_rows(parts: list[CheckpointTensor], parameters: dict[str, Any], rows: slice) -> np.ndarray:
    """float32 throughout: a kernel that multiplies with packed weights does not round them to 16 bits either."""
    import mlx.core as mx

    weight, scales, *biases = (_as_mlx(part, rows) for part in parts)
    values = mx.dequantize(weight, scales, *biases, **parameters, dtype=mx.float32)
    result = np.array(values)
    for part in parts:
        _release(part, rows)
    return result


def _as_mlx(tensor: CheckpointTensor, rows: slice) -> Any:
    import mlx.core as mx

    array = mx.array(np.ascontiguousarray(tensor.bits()[rows]))
    if tensor.dtype == "BF16":
        return array.view(mx.bfloat16).astype(mx.float32)
    return array.astype(mx.float32) if tensor.dtype == "F16" else array


def _release(tensor: CheckpointTensor, rows: slice) -> None:
    """Give the pages of these rows back."""
    start, stop, _ = rows.indices(tensor.shape[0])
    row_bytes = tensor.num_bytes // tensor.shape[0] if prod(tensor.shape) else 0
    tensor.release(start * row_bytes, stop * row_bytes)
