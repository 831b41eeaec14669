"""Checkpoints by the byte: safetensors files written by hand, and a folder around them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

Tensors = dict[str, tuple[str, np.ndarray]]
"""Name to dtype and the array that holds its bits."""


def safetensors_bytes(tensors: Tensors, **changes: Any) -> bytes:
    """A file with these tensors one after the other; ``changes`` replace the header's entries of a name."""
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, array) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    return with_header(json.dumps({**header, **changes}).encode(), b"".join(a.tobytes() for _, a in tensors.values()))


def with_header(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def write_checkpoint(folder: Path, tensors: Tensors, **files: Any) -> Path:
    """A checkpoint in one file. ``files`` are further JSON files by their name without the ending."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    for name, content in {"config": {"model_type": "llama"}, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def bfloat16(values: Any) -> np.ndarray:
    """The bits of values that bfloat16 can hold."""
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
