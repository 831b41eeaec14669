"""A node of llama.cpp's computation as it lies in memory: what an evaluation callback gets the address of.

Only the address is handed over, so the layout of ``struct ggml_tensor`` (ggml.h) has to be known. It is compared
with a product of two matrices that ggml makes for us, before any other node is looked at.
"""

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ...runtime.errors import ConversionError
from ..gguf import ggml
from ..gguf.ggml import TYPE_IDS

MAX_DIMS, _MAX_SOURCES, _MAX_PARAMS, _MAX_NAME = 4, 10, 16, 64


class Node(ctypes.Structure):
    """``struct ggml_tensor``: dimensions and strides in bytes, the contiguous one first; what it is made from."""

    type: int
    buffer: int | None
    ne: Any
    nb: Any
    op: int
    src: Any
    data: int | None
    name: bytes
    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * MAX_DIMS),
        ("nb", ctypes.c_size_t * MAX_DIMS),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * _MAX_PARAMS),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * _MAX_SOURCES),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * _MAX_NAME),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    )


class _InitParams(ctypes.Structure):
    """``struct ggml_init_params``."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@dataclass(frozen=True, slots=True)
class Operations:
    """ggml's numbers for the two products with a weight: with one matrix, and with the experts that a token chose."""

    product: int
    experts: int


class Scratch:
    """A few tensors of our own in ggml's memory, to look at what it makes of them. A context manager."""

    def __init__(self, mem_bytes: int = 1 << 16) -> None:
        self.lib = lib = _library()
        self._context = lib.ggml_init(_InitParams(mem_bytes, None, False))

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, *_error: object) -> None:
        self.lib.ggml_free(self._context)

    def tensor(self, type_name: str, *shape: int, name: str = "") -> int:
        """The address of a new tensor; ``shape`` in ggml's order."""
        dims = (ctypes.c_int64 * len(shape))(*shape)
        address = self.lib.ggml_new_tensor(self._context, TYPE_IDS[type_name], len(shape), dims)
        self.lib.ggml_set_name(address, name.encode())
        return address

    def product(self, weight: int, activations: int) -> int:
        """The address of the node that multiplies them."""
        return self.lib.ggml_mul_mat(self._context, weight, activations)

    def experts(self, weights: int, activations: int, ids: int) -> int:
        """The address of the node that multiplies each row with the expert whose number ``ids`` has for it."""
        return self.lib.ggml_mul_mat_id(self._context, weights, activations, ids)


@cache
def operations() -> Operations:
    """ggml's numbers, after the layout of ``Node`` has been checked. ConversionError when this ggml has another."""
    with Scratch() as scratch:
        weight = scratch.tensor("F16", 32, 3, name="some.weight")
        rows = scratch.tensor("F32", 32, 5, name="rows")
        product = scratch.product(weight, rows)
        _check(scratch.lib, weight, rows, product)
        experts = scratch.tensor("F16", 32, 3, 2)
        chosen = scratch.experts(experts, scratch.tensor("F32", 32, 1, 5), scratch.tensor("I32", 1, 5))
        return Operations(Node.from_address(product).op, Node.from_address(chosen).op)


def _check(lib: Any, weight: int, rows: int, product: int) -> None:
    node, made = Node.from_address(weight), Node.from_address(product)
    seen = (node.name, list(node.ne), list(node.nb), node.type, made.src[0], made.src[1], made.src[2], node.data)
    expected = (
        *(b"some.weight", [32, 3, 1, 1], [2, 64, 192, 192], TYPE_IDS["F16"]),
        *(weight, rows, None, lib.ggml_get_data(weight)),
    )
    size = lib.ggml_tensor_overhead() - _object_bytes(lib)
    if seen != expected or size != ctypes.sizeof(Node):
        raise ConversionError(
            f"llama.cpp's computations cannot be watched: its ggml_tensor has {size} bytes and another layout than "
            f"the {ctypes.sizeof(Node)} bytes known here; install the llama-cpp-python that tapster asks for"
        )


def _object_bytes(_lib: Any) -> int:
    """``struct ggml_object``, which stands before each tensor: two sizes, a pointer, a kind and four bytes."""
    return 2 * ctypes.sizeof(ctypes.c_size_t) + ctypes.sizeof(ctypes.c_void_p) + 8


def floats(node: Node) -> np.ndarray:
    """The float32 values of a node, (…, rows, columns) with all four dimensions; a view where they lie in memory."""
    assert node.data is not None
    return _values(node, np.float32)


def integers(node: Node) -> np.ndarray:
    """The int32 values of a node in the same form."""
    return _values(node, np.int32)


def _values(node: Node, dtype: type[np.generic]) -> np.ndarray:
    shape, strides = tuple(node.ne[::-1]), tuple(node.nb[::-1])
    lib = _library()
    address = ctypes.addressof(node)
    num_bytes = lib.ggml_nbytes(address)
    if node.buffer and not lib.ggml_backend_buffer_is_host(node.buffer):
        data = np.empty(num_bytes, np.uint8)
        lib.ggml_backend_tensor_get(address, data.ctypes.data, 0, num_bytes)
    else:
        data = np.frombuffer((ctypes.c_uint8 * num_bytes).from_address(node.data or 0), np.uint8)
    return np.ndarray(shape, dtype, data, strides=strides)


@cache
def _library() -> Any:
    lib = ggml.library()
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "ggml_init": (pointer, [_InitParams]),
        "ggml_free": (None, [pointer]),
        "ggml_new_tensor": (pointer, [pointer, number, number, ctypes.POINTER(ctypes.c_int64)]),
        "ggml_set_name": (pointer, [pointer, ctypes.c_char_p]),
        "ggml_mul_mat": (pointer, [pointer, pointer, pointer]),
        "ggml_mul_mat_id": (pointer, [pointer, pointer, pointer, pointer]),
        "ggml_get_data": (pointer, [pointer]),
        "ggml_nbytes": (size, [pointer]),
        "ggml_tensor_overhead": (size, []),
        "ggml_backend_buffer_is_host": (ctypes.c_bool, [pointer]),
        "ggml_backend_tensor_get": (None, [pointer, pointer, size, size]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib
