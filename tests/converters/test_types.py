"""The ladder agrees with llama.cpp's numbers, and a wrong name is answered with the near ones."""

from itertools import pairwise

import pytest

from tapster.converters.gguf.ggml import TYPE_IDS
from tapster.converters.gguf.types import IMATRIX_TENSOR_TYPES, LADDER, TENSOR_TYPES, quant_type, tensor_type
from tapster.runtime.errors import ConversionError
from tapster.runtime.ggml_types import FILE_TYPES

ISSUED = "Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_0 Q4_1 Q4_K_S Q4_K_M Q5_0 Q5_1 Q5_K_S Q5_K_M Q6_K Q8_0 BF16 F16 F32"


def test_numbers_and_bases_are_llama_cpp_s() -> None:
    for kind in LADDER:
        assert FILE_TYPES[kind.file_type] == kind.name
        assert kind.base in TYPE_IDS
        assert kind.name.startswith(kind.base[:3])


def test_the_ladder_rises_and_has_every_type() -> None:
    assert all(low.bits <= high.bits for low, high in pairwise(LADDER))
    assert {kind.name for kind in LADDER} >= set(ISSUED.split())
    assert {kind.name for kind in LADDER if kind.direct} == {"F32", "F16", "BF16", "Q8_0"}
    assert all(kind.description for kind in LADDER)


def test_names_in_any_case_and_short_ones() -> None:
    assert quant_type("q4_k_m").name == quant_type("Q4_K").name == "Q4_K_M"
    assert quant_type("fp16").name == "F16"
    assert tensor_type("iq4_nl") == "IQ4_NL"


@pytest.mark.parametrize(("wrong", "near"), [("Q4_KM", "Q4_K_M"), ("IQ2XS", "IQ2_XS"), ("Q7", "there are IQ1_S")])
def test_a_wrong_type_is_answered_with_near_ones(wrong: str, near: str) -> None:
    with pytest.raises(ConversionError, match=near):
        quant_type(wrong)


def test_a_file_type_is_no_tensor_type() -> None:
    with pytest.raises(ConversionError, match="Q4_K"):
        tensor_type("Q4_K_M")
    assert IMATRIX_TENSOR_TYPES < set(TENSOR_TYPES) <= set(TYPE_IDS)
