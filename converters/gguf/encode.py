"""Float32 to the types that are written directly: F32, F16, BF16, Q8_0. Byte for byte what llama.cpp makes.

ggml's reference routines do it: F16 and BF16 round to the nearest value, ties to the even one; a Q8_0 block is 32
integers and their scale in float16. They are about twice as fast as the same in numpy.
"""

import numpy as np

from . import ggml

DIRECT_TYPES = ("F32", "F16", "BF16", "Q8_0")
MAX_F16 = 65504.0


def is_already(dtype: str, type_name: str) -> bool:
    """Whether elements of this dtype of safetensors are stored as they are, bit for bit."""
    return dtype == type_name and dtype in ("F32", "F16", "BF16")


def encode(values: np.ndarray, type_name: str) -> np.ndarray:
    """Finite, contiguous float32 values, whole blocks of them, as they are stored. F16: none beyond ``MAX_F16``."""
    return values if type_name == "F32" else ggml.quantize(values, type_name)


def largest(values: np.ndarray) -> float:
    """The value that is farthest from zero, with its sign."""
    if not values.size:
        return 0.0
    low, high = float(values.min()), float(values.max())
    return high if high >= -low else low
