"""ggml's own conversions between float32 and its types, called in the library that llama-cpp-python brings.

Importing llama_cpp takes 0.2 s and loads all of llama.cpp; libggml-base alone takes a millisecond. What its table
of types says is compared with ours before a function of it is called, so another layout of that table ends in an
error and not in a crash.
"""

import ctypes
import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import ConversionError
from ...runtime.ggml_types import GGML_TYPES, GGMLType

TYPE_IDS: dict[str, int] = {kind.name: type_id for type_id, kind in GGML_TYPES.items()}
_LIBRARY_NAMES = {"win32": "ggml-base.dll", "darwin": "libggml-base.dylib"}
_ROW_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
"""Source, target, number of elements. Python's lock is released during the call."""


class _Traits(ctypes.Structure):
    """``struct ggml_type_traits`` of ggml.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block_size", ctypes.c_int64),
        ("block_size_interleave", ctypes.c_int64),
        ("block_bytes", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    )


def ggml_type(name: str) -> GGMLType:
    """Block size and bytes of the type of this name."""
    return GGML_TYPES[TYPE_IDS[name]]


def row_bytes(name: str, num_elements: int) -> int:
    """How many bytes ``num_elements`` (whole blocks) take."""
    _, block_size, block_bytes = ggml_type(name)
    return num_elements // block_size * block_bytes


def dequantize(raw: np.ndarray, name: str) -> np.ndarray:
    """The float32 values of contiguous whole blocks, flat."""
    _, block_size, block_bytes = ggml_type(name)
    values = np.empty(raw.nbytes // block_bytes * block_size, np.float32)
    _function(name, "to_float")(raw.ctypes.data, values.ctypes.data, values.size)
    return values


def quantize(values: np.ndarray, name: str) -> np.ndarray:
    """The bytes of contiguous float32 values, whole blocks of them, by ggml's reference rounding."""
    raw = np.empty(row_bytes(name, values.size), np.uint8)
    _function(name, "from_float_ref")(values.ctypes.data, raw.ctypes.data, values.size)
    return raw


@cache
def _function(name: str, which: str) -> Any:
    kind, traits = ggml_type(name), _traits(TYPE_IDS[name])
    ours = (kind.name.lower(), kind.block_size, kind.block_bytes)
    theirs = ((traits.name or b"").decode("ascii", "replace").lower(), traits.block_size, traits.block_bytes)
    address = getattr(traits, which)
    if ours != theirs or not address:
        raise ConversionError(
            f"the ggml library of llama-cpp-python has no {which} for the type {name} as {ours} (it says {theirs}): "
            f"install the version of llama-cpp-python that tapster asks for"
        )
    return _ROW_FUNCTION(address)


def _traits(type_id: int) -> _Traits:
    lookup = library().ggml_get_type_traits
    lookup.argtypes, lookup.restype = [ctypes.c_int], ctypes.POINTER(_Traits)
    return lookup(type_id).contents


@cache
def library() -> ctypes.CDLL:
    """libggml-base itself, loaded once. ConversionError when it cannot be."""
    path = _library_path()
    try:
        found = ctypes.CDLL(str(path))
        _ = found.ggml_get_type_traits
    except (OSError, AttributeError) as error:
        raise ConversionError(
            f"the ggml library {path} cannot be used ({error}): reinstall llama-cpp-python"
        ) from error
    return found


def _library_path() -> Path:
    """Where llama_cpp itself looks: the folder its environment variable names, or its own."""
    name = _LIBRARY_NAMES.get(sys.platform, "libggml-base.so")
    if folder := os.environ.get("LLAMA_CPP_LIB_PATH"):
        return Path(folder) / name
    spec = importlib.util.find_spec("llama_cpp")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ConversionError("llama-cpp-python is not installed, and its ggml library is needed: pip install tapster")
    return Path(folders[0]) / "lib" / name
