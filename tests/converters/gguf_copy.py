"""Copies of GGUF files with something changed, written by the gguf package."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Change = Callable[[str, np.ndarray], np.ndarray | None]


def copy_gguf(
    source: Path,
    target: Path,
    *,
    quantize: Mapping[str, gguf.GGMLQuantizationType] | gguf.GGMLQuantizationType | None = None,
    change: Change = lambda _name, data: data,
    fields: Mapping[str, Any] | None = None,
) -> Path:
    """``change`` gets each tensor as float32 in numpy's order, or as bytes where it stays quantized, and may drop it.
    ``quantize`` is the type of all matrices or of those named; ``fields`` replace metadata, None drops a key."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    fields = dict(fields or {})
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture" or key in fields:
            continue
        sub_type = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(key, field.contents(), field.types[0], sub_type)
    for key, value in fields.items():
        if value is not None:
            writer.add_array(key, value) if isinstance(value, list) else writer.add_string(key, value)
    for tensor in reader.tensors:
        data = change(tensor.name, np.array(tensor.data))
        if data is not None:
            _add(writer, tensor, data, quantize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _add(writer: gguf.GGUFWriter, tensor: gguf.ReaderTensor, data: np.ndarray, quantize: Any) -> None:
    kind = quantize.get(tensor.name) if isinstance(quantize, Mapping) else quantize
    if data.dtype == np.uint8:
        writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
    elif kind is not None and data.ndim > 1:
        writer.add_tensor(tensor.name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    else:
        writer.add_tensor(tensor.name, data)
