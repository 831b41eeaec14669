"""How far an artifact may be from its source before something must have gone wrong.

A block quantizer with b bits has 2^b levels over the range of a block of n numbers; rounding to the nearest leaves an
error of at most half a level, whose energy relative to the block's is largest when one number is all of the block:
sqrt(n) / 2^b, some 6 / 2^b for a block of 32 and 11 / 2^b for a group of 128. Normally distributed weights stay at a
fifth of that. The bounds are set from it and checked with ggml's own rounding of weights of all sorts (normal, heavy
tails, outliers, sparse; with and without importances): none reaches them, so no model misses them for being small,
random or odd. Permuted rows (1.41), a lost or inverted scale (1 to 2) or another tensor's data do.
"""

import re
from collections.abc import Iterable
from math import sqrt
from typing import NamedTuple

from ..gguf.ggml import ggml_type

EXACT = frozenset({"F64", "F32", "F16", "BF16", "I8", "I16", "I32", "I64"})
"""Types that hold their numbers one by one."""

_BITS = {
    **dict.fromkeys(("F64", "F32", "I64", "I32"), 24),
    **dict.fromkeys(("F16", "I16"), 11),
    "BF16": 8.5,
    **dict.fromkeys(("Q8_0", "Q8_1", "Q8_K", "I8"), 8),
    "Q6_K": 6,
    **dict.fromkeys(("Q5_0", "Q5_1", "Q5_K"), 5),
    **dict.fromkeys(("Q4_0", "Q4_1", "Q4_K", "IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4"), 4),
    "Q3_K": 3,
    **dict.fromkeys(("IQ3_S", "IQ3_XXS"), 2.5),
    **dict.fromkeys(("Q2_K", "Q2_0", "IQ2_S", "IQ2_XS", "IQ2_XXS"), 2),
    **dict.fromkeys(("TQ1_0", "TQ2_0"), 1.58),
    **dict.fromkeys(("IQ1_M", "IQ1_S", "Q1_0"), 1),
    "mxfp4": 4,
    "nvfp4": 3.5,
    "mxfp8": 5,
}
_GROUP_SIZES = {"mxfp4": 32, "mxfp8": 32, "nvfp4": 16}
_GROUPED = re.compile(r"(?:int)?(\d)(?:bit)?-g(\d+)")
"""``4bit-g64`` as MLX packs it, ``int4-g32`` as MatMulNBits does."""


class TensorBound(NamedTuple):
    """The largest relative RMSE: of a whole tensor, and of a single block against its own and the usual energy."""

    tensor: float
    block: float


def bits(type_name: str) -> float:
    """The bits of one number, without the scales; of a floating-point type those of its precision. A code book of three
    bits, which has no zero, counts as half a bit less, and so do scales that cannot hold a block of tiny numbers; eight
    bits with three of mantissa count as five."""
    if grouped := _GROUPED.fullmatch(type_name):
        return float(grouped[1])
    return _BITS[type_name]


def block_size(type_name: str, row_elements: int) -> int:
    """How many numbers share a scale; where each stands for itself, a row."""
    if type_name in EXACT:
        return row_elements
    if grouped := _GROUPED.fullmatch(type_name):
        return int(grouped[2])
    return _GROUP_SIZES.get(type_name) or ggml_type(type_name).block_size


def tensor_bound(type_name: str) -> TensorBound:
    """Root-mean-square errors relative to the source's root mean square.

    Below three bits little is left to bound: a code book may miss a block as far as by its own size. More numbers that
    share a scale have a wider range.
    """
    step = 2.0 ** -bits(type_name)
    if type_name in EXACT:
        return TensorBound(step, 2 * step)
    if grouped := _GROUPED.fullmatch(type_name):
        step *= sqrt(int(grouped[2]) / 32)
    return TensorBound(min(4 * step, 0.95), min(16 * step, 1.75))


def divergence_bound(type_names: Iterable[str]) -> float:
    """The largest mean KL divergence in nats of a file with tensors of these types: twice as much with each bit less.

    It follows the type with the fewest bits: 0.1 at eight bits, 1.6 at four, 6.4 at two. That is some fifty times what
    is reported for models of eight billion parameters and ten times what it is for a hundred million; a broken
    file is off by as many nats as the vocabulary has.
    """
    return 0.1 * 2.0 ** (8 - min([8.0, *map(bits, type_names)]))
