"""Read an ONNX folder of ours back: each tensor's type and shape, and its rows as the float32 they stand for.

Only what is on disk counts: shapes, places and block sizes come out of ``model.onnx``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...runtime.errors import ConversionError
from ..folder import ArtifactTensor
from .packing import dequantize

if TYPE_CHECKING:
    import onnx_ir as ir

    from .plan import FolderPlan

GRAPH_FILE = "model.onnx"
_CODES, _SCALES, _ZEROS, _ROWS = ".codes", ".scales", ".zeros", ".rows"


@dataclass(frozen=True)
class ReadTensor:
    """A weight by its name in the graph. ``block`` and ``bits`` say how it is quantized, if it is."""

    shape: tuple[int, ...]
    arrays: tuple[np.ndarray, ...]
    bits: int
    block: int = 0

    @property
    def type(self) -> str:
        return f"int{self.bits}-g{self.block}" if self.block else f"fp{self.bits}"

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    def rows(self, rows: slice) -> np.ndarray:
        """Some rows in float32."""
        if not self.block:
            return np.asarray(self.arrays[0][rows], np.float32)
        codes, scales, *zeros = (np.asarray(array[rows]) for array in self.arrays)
        return dequantize(codes, scales, zeros[0] if zeros else None, bits=self.bits, num_columns=self.shape[1])


def read_folder(folder: Path) -> dict[str, ReadTensor]:
    """The weights of the model in ``folder``, mapped and not read yet. ConversionError when it is none or damaged."""
    import onnx_ir as ir

    try:
        graph = ir.load(folder / GRAPH_FILE).graph
        arrays = {name: _array(folder, value) for name, value in graph.initializers.items()}
    except Exception as error:  # protobuf's decoder raises one of its own
        raise ConversionError(f"{folder / GRAPH_FILE} cannot be read ({type(error).__name__}: {error})") from error
    quantized = {name: tensor for node in graph for name, tensor in _quantized(node, arrays)}
    plain = {
        name: ReadTensor(array.shape, (array,), 8 * array.itemsize)
        for name, array in arrays.items()
        if array.dtype in (np.float32, np.float16) and not name.endswith(_SCALES)
    }
    return {**quantized, **plain}


def _array(folder: Path, value: ir.Value) -> np.ndarray:
    """A constant; one in the data file is mapped."""
    import onnx_ir as ir

    tensor = value.const_value
    if not isinstance(tensor, ir.ExternalTensor):
        assert tensor is not None
        return tensor.numpy()
    shape = tensor.shape.numpy()
    path = folder / tensor.location
    return np.memmap(path, tensor.dtype.numpy(), "r", offset=tensor.offset or 0, shape=shape)


def _quantized(node: ir.Node, arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, ReadTensor]]:
    """The matrix that a node takes, if it takes a quantized one."""
    if node.op_type not in ("MatMulNBits", "GatherBlockQuantized"):
        return
    names = [value.name or "" for value in node.inputs[:4] if value is not None]
    codes = names[1 if node.op_type == "MatMulNBits" else 0].removesuffix(_ROWS)
    name = codes.removesuffix(_CODES)
    bits, block = (node.attributes[key].as_int() for key in ("bits", "block_size"))
    parts = [arrays.get(f"{name}{suffix}") for suffix in (_CODES, _SCALES, _ZEROS)]
    if parts[0] is None:  # an embedding with an output matrix of its own
        flat = arrays[f"{codes}{_ROWS}"]
        parts[0] = flat.reshape(len(flat), -1, block * bits // 8)
    columns = node.attributes["K"].as_int() if "K" in node.attributes else len(arrays["model.norm.weight"])
    yield name, ReadTensor((len(parts[0]), columns), tuple(part for part in parts if part is not None), bits, block)


def artifact_tensors(plan: FolderPlan, folder: Path) -> dict[str, ArtifactTensor]:
    """What a proof compares: each weight of the checkpoint as it can be read back from the folder."""
    read = read_folder(folder)
    sources = {f"{linear.name}.weight": linear.parts for linear in plan.linears}
    sources |= {f"{linear.name}.bias": linear.bias for linear in plan.linears if linear.bias}
    for norm in plan.decoder.norms():
        sources[f"{norm.name}.weight"] = norm.parts
        if norm.bias:
            sources[f"{norm.name}.bias"] = (norm.bias,)
    return {
        name: ArtifactTensor(
            sources=tuple(part.name for part in parts),
            shape=read[name].shape,
            type=read[name].type,
            num_bytes=read[name].num_bytes,
            read=read[name].rows,
        )
        for name, parts in sources.items()
    }
