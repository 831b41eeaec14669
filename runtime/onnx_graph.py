"""What an ONNX file weighs: its stored tensors, which of them are quantized, and the files that hold their data.

Only names, shapes and places are read, out of the protocol buffer itself (source: onnx.proto in the onnx project):
a model 7 has a graph 7; a graph has nodes 1 and initializers 5; an initializer has dims 1, a type 2, a name 8 and
external data 13; a node has inputs 1, a type 4 and attributes 5.
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from .errors import ModelError
from .protobuf import fields, varint
from .safetensors_header import shown

_TYPES: dict[int, tuple[str, int]] = {
    **{1: ("fp32", 32), 2: ("uint8", 8), 3: ("int8", 8), 4: ("uint16", 16), 5: ("int16", 16), 6: ("int32", 32)},
    **{7: ("int64", 64), 9: ("bool", 8), 10: ("fp16", 16), 11: ("fp64", 64), 12: ("uint32", 32), 13: ("uint64", 64)},
    **{16: ("bf16", 16), 17: ("fp8_e4m3", 8), 18: ("fp8_e4m3fnuz", 8), 19: ("fp8_e5m2", 8), 20: ("fp8_e5m2fnuz", 8)},
    **{21: ("uint4", 4), 22: ("int4", 4), 23: ("fp4", 4), 24: ("fp8_e8m0", 8), 25: ("uint2", 2), 26: ("int2", 2)},
}
"""Names and bits of ``TensorProto.DataType``."""
_QUANTIZED_INPUTS = {"MatMulNBits": (1, 2, 3), "GatherBlockQuantized": (0, 2, 3)}
"""Which inputs of the operators for blocks of small integers are the weights, their scales and their zero points."""
_TABLE_INPUTS = {"RotaryEmbedding": (2, 3), "GroupQueryAttention": (7, 8)}
"""Which inputs are cosines and sines of positions."""
_BLOCK_DEFAULTS = {"bits": 4, "block_size": 128}


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """A stored tensor. ``location`` is the file that has its data, beside the graph; None: the graph itself."""

    name: str
    type: str
    shape: tuple[int, ...]
    size_bytes: int
    location: str | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Blocks:
    """A weight in blocks of ``block_size`` integers of ``bits``, with what belongs to it: scales and zero points."""

    weight: str
    companions: tuple[str, ...]
    bits: int
    block_size: int
    parameters: int


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """``tensors`` by name, ``blocks`` by the name of the weight, ``tables`` the names of cosines and sines."""

    tensors: Mapping[str, GraphTensor]
    blocks: Mapping[str, Blocks]
    tables: frozenset[str]


def read_graph(path: Path) -> OnnxGraph:
    """The stored tensors of the ONNX file at ``path``. ModelError when it is none or damaged."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _graph(memoryview(mapped))  # not closed: views of it live as long as an error's traceback does
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, IndexError, KeyError) as error:
        raise ModelError(f"{path} is no ONNX file, or damaged ({error}): download or convert it again") from error


def check_data(folder: Path, graph: OnnxGraph, path: Path) -> list[Path]:
    """The files that hold the graph's data. ModelError when one is missing or too short."""
    needed: dict[str, int] = {}
    for tensor in graph.tensors.values():
        if tensor.location is not None:
            needed[tensor.location] = max(needed.get(tensor.location, 0), tensor.offset + tensor.size_bytes)
    for name, num_bytes in needed.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(f"{path} has its data in {shown(name)}, which is no file of its folder")
        file = folder / name
        if not file.is_file():
            raise ModelError(f"{path} has its weights in {name}, which is missing: put it into {folder}")
        if file.stat().st_size < num_bytes:
            raise ModelError(
                f"{file} is truncated: it needs {num_bytes:,} bytes and has {file.stat().st_size:,}; download or "
                f"convert it again"
            )
    return [folder / name for name in needed]


def _graph(data: memoryview) -> OnnxGraph:
    tensors: dict[str, GraphTensor] = {}
    nodes: list[tuple[list[str], str, dict[str, int]]] = []
    num_graphs = 0
    for graph in _messages(data, 7):
        num_graphs += 1
        for number, value in fields(graph):
            if number == 5 and not isinstance(value, int):
                tensor = _tensor(value)
                tensors[tensor.name] = tensor
            elif number == 1 and not isinstance(value, int):
                nodes.append(_node(value))
    if num_graphs != 1:
        raise ValueError(f"it has {num_graphs} graphs")
    blocks = (_blocks(tensors, *node) for node in nodes if node[1] in _QUANTIZED_INPUTS)
    tables = {
        inputs[idx] for inputs, operator, _ in nodes for idx in _TABLE_INPUTS.get(operator, ()) if idx < len(inputs)
    }
    return OnnxGraph(tensors, {found.weight: found for found in blocks if found is not None}, frozenset(tables))


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    return (value for number, value in fields(data) if number == wanted and not isinstance(value, int))


def _text(data: memoryview) -> str:
    return bytes(data).decode("utf-8")


def _tensor(data: memoryview) -> GraphTensor:
    name, code, shape = "", 0, []
    external: dict[str, str] = {}
    for number, value in fields(data):
        if number == 1:
            shape += [value] if isinstance(value, int) else _packed(value)
        elif number == 2 and isinstance(value, int):
            code = value
        elif number == 8 and not isinstance(value, int):
            name = _text(value)
        elif number == 13 and not isinstance(value, int):
            key, text = (_text(part) for part in _pair(value))
            external[key] = text
    if code == 8:  # strings, which are no weights
        return GraphTensor(name, "string", tuple(shape), 0)
    label, bits = _TYPES[code]
    if len(shape) > 8 or any(size >= 1 << 47 for size in shape):
        raise ValueError(f"the tensor {shown(name)} has the shape {shown(shape)}")
    size_bytes = (prod(shape) * bits + 7) // 8
    if int(external.get("length", size_bytes)) != size_bytes:
        raise ValueError(f"the tensor {shown(name)} needs {size_bytes} bytes and has {external['length']}")
    return GraphTensor(
        name, label, tuple(shape), size_bytes, external.get("location"), max(0, int(external.get("offset", 0)))
    )


def _packed(data: memoryview) -> list[int]:
    numbers, position = [], 0
    while position < len(data):
        number, position = varint(data, position)
        numbers.append(number)
    return numbers


def _pair(data: memoryview) -> tuple[memoryview, memoryview]:
    found = {number: value for number, value in fields(data) if not isinstance(value, int)}
    return found[1], found[2]


def _node(data: memoryview) -> tuple[list[str], str, dict[str, int]]:
    """Inputs, operator, and the attributes that are integers."""
    inputs: list[str] = []
    operator = ""
    attributes: dict[str, int] = {}
    for number, value in fields(data):
        if isinstance(value, int):
            continue
        if number == 1:
            inputs.append(_text(value))
        elif number == 4:
            operator = _text(value)
        elif number == 5:
            found = {key: part for key, part in fields(value) if key in (1, 3)}
            if isinstance(name := found.get(1), memoryview) and isinstance(integer := found.get(3), int):
                attributes[_text(name)] = integer
    return inputs, operator, attributes


def _blocks(
    tensors: Mapping[str, GraphTensor], inputs: list[str], operator: str, attributes: Mapping[str, int]
) -> Blocks | None:
    names = [inputs[idx] for idx in _QUANTIZED_INPUTS[operator] if idx < len(inputs)]
    weight = tensors.get(names[0]) if names else None
    if weight is None:
        return None
    bits, block_size = (attributes.get(key, default) for key, default in _BLOCK_DEFAULTS.items())
    if not (1 <= bits <= 8 and block_size > 0):
        raise ValueError(f"{operator} has {bits} bits in blocks of {block_size}")
    if "K" in attributes and "N" in attributes:
        parameters = attributes["K"] * attributes["N"]
    else:
        parameters = prod(weight.shape) * (8 // bits if weight.type == "uint8" else 1)
    return Blocks(weight.name, tuple(name for name in names[1:] if name in tensors), bits, block_size, parameters)
