"""The ladder: every type a GGUF file can be written in here, from the fewest bits to the most.

A file's type is a recipe: it says which tensor gets which of ggml's types. Sources: ``llama_ftype`` of llama.h for
the numbers, ``tensor_requires_imatrix`` of llama-quant.cpp for what needs an importance matrix, tools/quantize of
llama.cpp for the bits, which are those of a whole 8 B model.
"""

from dataclasses import dataclass
from difflib import get_close_matches

from ...runtime.errors import ConversionError


@dataclass(frozen=True, slots=True)
class QuantType:
    """One rung. ``file_type`` is llama.cpp's number for it, ``base`` the ggml type of most of its tensors.

    ``bits`` is per weight, over the whole file of a large model. ``direct``: written straight from a
    checkpoint, everything else goes through 16 bits. ``published``: part of ``gguf:all``.
    """

    name: str
    file_type: int
    base: str
    bits: float
    description: str
    direct: bool = False
    needs_imatrix: bool = False
    published: bool = True


LADDER: tuple[QuantType, ...] = (
    QuantType("IQ1_S", 24, "IQ1_S", 2.00, "smallest of all, for experiments", needs_imatrix=True),
    QuantType("IQ1_M", 31, "IQ1_M", 2.15, "extremely small, for experiments", needs_imatrix=True),
    QuantType("IQ2_XXS", 19, "IQ2_XXS", 2.38, "very small, large models only", needs_imatrix=True),
    QuantType("IQ2_XS", 20, "IQ2_XS", 2.59, "very small, large models only", needs_imatrix=True),
    QuantType("IQ2_S", 28, "IQ2_XS", 2.74, "very small, large models only", needs_imatrix=True),
    QuantType("IQ2_M", 29, "IQ2_S", 2.93, "very small, the best of the 2-bit IQ types", needs_imatrix=True),
    QuantType("Q2_K_S", 21, "Q2_K", 2.97, "very small, faster than the IQ types", needs_imatrix=True),
    QuantType("Q2_K", 10, "Q2_K", 3.16, "small with a large loss"),
    QuantType("IQ3_XXS", 23, "IQ3_XXS", 3.25, "small with a clear loss", needs_imatrix=True),
    QuantType("IQ3_XS", 22, "IQ3_S", 3.50, "small with a clear loss", needs_imatrix=True),
    QuantType("Q3_K_S", 11, "Q3_K", 3.64, "small with a clear loss, fast"),
    QuantType("IQ3_S", 26, "IQ3_S", 3.66, "better than Q3_K_S at its size, slower"),
    QuantType("IQ3_M", 27, "IQ3_S", 3.76, "better than Q3_K_M at less than its size, slower"),
    QuantType("Q3_K_M", 12, "Q3_K", 4.00, "for little memory"),
    QuantType("Q3_K_L", 13, "Q3_K", 4.30, "for little memory"),
    QuantType("IQ4_XS", 30, "IQ4_XS", 4.46, "good at its size"),
    QuantType("Q4_0", 2, "Q4_0", 4.66, "old and simple, fast on ARM"),
    QuantType("Q4_K_S", 14, "Q4_K", 4.67, "good, a little smaller than Q4_K_M"),
    QuantType("IQ4_NL", 25, "IQ4_NL", 4.68, "like IQ4_XS, a little larger, any rows that divide by 32"),
    QuantType("Q4_K_M", 15, "Q4_K", 4.89, "a good choice for most uses"),
    QuantType("Q4_1", 3, "Q4_1", 5.15, "old and simple, Q4_K_M is better"),
    QuantType("Q5_K_S", 16, "Q5_K", 5.57, "very good"),
    QuantType("Q5_0", 8, "Q5_0", 5.60, "old and simple, Q5_K_M is better"),
    QuantType("Q5_K_M", 17, "Q5_K", 5.70, "very good"),
    QuantType("Q5_1", 9, "Q5_1", 6.09, "old and simple, Q5_K_M is better"),
    QuantType("Q6_K", 18, "Q6_K", 6.56, "almost without loss"),
    QuantType("Q8_0", 7, "Q8_0", 8.50, "hardly to be told from 16 bits", direct=True),
    QuantType("F16", 1, "F16", 16.0, "16 bits, for machines without bfloat16", direct=True, published=False),
    QuantType("BF16", 32, "BF16", 16.0, "16 bits, what most checkpoints are made of", direct=True),
    QuantType("F32", 0, "F32", 32.0, "32 bits, for comparisons", direct=True, published=False),
)

IMATRIX_ADVICE = "make one with `tapster imatrix MODEL`, or leave it to gguf:all"

_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "FP16": "F16", "FP32": "F32"}
_BY_NAME = {member.name: member for member in LADDER}

TENSOR_TYPES = (
    *("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS"),
    *("Q3_K", "IQ3_S", "IQ3_XXS", "Q2_K", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0"),
)
"""The types that a single tensor can be asked to have."""
IMATRIX_TENSOR_TYPES = frozenset(("IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"))
"""Of these, those that llama.cpp makes only with an importance matrix for the tensor."""


def quant_type(name: str) -> QuantType:
    """The rung of this name, in any case. ConversionError lists the near ones, or all."""
    wanted = name.upper()
    if found := _BY_NAME.get(_ALIASES.get(wanted, wanted)):
        return found
    raise ConversionError(f"no GGUF type is called {name!r}{_near(wanted, list(_BY_NAME))}")


def tensor_type(name: str) -> str:
    """The ggml type of this name, in any case. ConversionError lists the near ones, or all."""
    if name.upper() in TENSOR_TYPES:
        return name.upper()
    raise ConversionError(f"no tensor type is called {name!r}{_near(name.upper(), TENSOR_TYPES)}")


def _near(wanted: str, names: list[str] | tuple[str, ...]) -> str:
    near = get_close_matches(wanted, names, n=3)
    return f", did you mean {' or '.join(near)}?" if near else f"; there are {', '.join(names)}"
