"""The number formats of safetensors, and what they are in float32.

numpy has no bfloat16 and no 8-bit floats, so those travel as the unsigned integers of their bits. bfloat16 is the
upper half of a float32; an 8-bit float is looked up in a table of its 256 values (source: "FP8 formats for deep
learning", arXiv 2209.05433; E4M3 has no infinity, its largest exponent holds numbers).
"""

from functools import cache

import numpy as np

STORAGE: dict[str, np.dtype] = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?",
        "U8": "u1",
        "I8": "i1",
        "U16": "<u2",
        "I16": "<i2",
        "U32": "<u4",
        "I32": "<i4",
        "U64": "<u8",
        "I64": "<i8",
        "F8_E4M3": "u1",
        "F8_E5M2": "u1",
        "BF16": "<u2",
        "F16": "<f2",
        "F32": "<f4",
        "F64": "<f8",
    }.items()
}
"""How numpy holds the elements of each dtype that can be read."""

_INFINITY_BITS = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000, "F64": 0x7FF0000000000000, "F8_E5M2": 0x7C}
"""The bits of plus infinity. Without the sign, everything from there on is infinity or no number."""


def to_float32(bits: np.ndarray, dtype: str) -> np.ndarray:
    """The values of ``bits`` (as ``STORAGE`` holds them). A view where they are float32 already."""
    if dtype == "BF16":
        return np.left_shift(bits, 16, dtype=np.uint32).view(np.float32)
    if dtype in ("F8_E4M3", "F8_E5M2"):
        return _eight_bit_values(dtype)[bits]
    with np.errstate(over="ignore", invalid="ignore"):  # F64 beyond float32 becomes infinite
        return bits.astype(np.float32, copy=False)


def all_finite(bits: np.ndarray, dtype: str) -> bool:
    """Whether no element is infinite or no number. Two passes over the bits, and no memory for a result.

    As signed integers the negative numbers are out of the way of the positive ones; as unsigned integers they
    are the largest.
    """
    if not bits.size:
        return True
    if dtype == "F8_E4M3":
        return not ((bits & 0x7F) == 0x7F).any()
    if dtype not in _INFINITY_BITS:
        return True
    size, infinity = bits.dtype.itemsize, _INFINITY_BITS[dtype]
    sign = 1 << (8 * size - 1)
    return bool(bits.view(f"<i{size}").max() < infinity and bits.view(f"<u{size}").max() < sign | infinity)


@cache
def _eight_bit_values(dtype: str) -> np.ndarray:
    """All 256 values, float32."""
    mantissa_bits, bias = (3, 7) if dtype == "F8_E4M3" else (2, 15)
    codes = np.arange(128)
    exponent, mantissa = codes >> mantissa_bits, (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    normal = exponent > 0
    values = np.ldexp(mantissa + normal, np.where(normal, exponent, 1) - bias)
    if dtype == "F8_E4M3":
        values[0x7F] = np.nan
    else:
        values[0x7C], values[0x7D:] = np.inf, np.nan
    return np.concatenate([values, -values]).astype(np.float32)
