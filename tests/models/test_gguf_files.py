"""Which files are a model: the rules on names."""

import pytest

from tapster.runtime.errors import ModelError
from tapster.runtime.gguf_files import model_names, part_names, select_model

QUANTS = [
    "m-IQ4_XS.gguf",
    "m-Q4_K_M.gguf",
    "m-Q4_K_S.gguf",
    "m-Q8_0.gguf",
    "m.Q4_0.gguf",
    "m_F16.gguf",
    "UD-Q4_K_XL/m-UD-Q4_K_XL.gguf",
]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("m-Q4_0.gguf", ["m-Q4_0.gguf"]),
        ("q/m-00002-of-00002.gguf", ["q/m-00001-of-00002.gguf", "q/m-00002-of-00002.gguf"]),
        ("m-00001-of-00001.GGUF", ["m-00001-of-00001.GGUF"]),
        ("m-00003-of-00002.gguf", ["m-00003-of-00002.gguf"]),
        ("m-00000-of-00000.gguf", ["m-00000-of-00000.gguf"]),
        ("m-00001-of-00002.bin", ["m-00001-of-00002.bin"]),
    ],
)
def test_part_names(name: str, parts: list[str]) -> None:
    assert part_names(name) == parts


def test_model_names_are_models_only_and_by_their_first_part() -> None:
    names = [
        "b-00002-of-00002.gguf",
        "b-00001-of-00002.gguf",
        "a.GGUF",
        "mmproj-F16.gguf",
        "a.mmproj.gguf",
        "imatrix.gguf",
        "README.md",
    ]
    assert model_names(names) == ["a.GGUF", "b-00001-of-00002.gguf"]


@pytest.mark.parametrize(
    ("quant", "chosen"),
    [
        ("Q4_K_M", "m-Q4_K_M.gguf"),
        ("q8_0", "m-Q8_0.gguf"),
        ("F16", "m_F16.gguf"),
        ("Q4_0", "m.Q4_0.gguf"),
        ("IQ4_XS", "m-IQ4_XS.gguf"),
        ("Q4_K_XL", "UD-Q4_K_XL/m-UD-Q4_K_XL.gguf"),
        ("m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL/m-UD-Q4_K_XL.gguf"),
    ],
)
def test_select_by_quantization_or_name(quant: str, chosen: str) -> None:
    assert select_model(QUANTS, "org/m", quant) == chosen


@pytest.mark.parametrize("quant", ["Q4_K", "Q4", "4_0", "Q9_0"])
def test_only_whole_words_count(quant: str) -> None:
    with pytest.raises(
        ModelError, match=f"org/m has no GGUF model named '{quant}', but IQ4_XS, Q4_K_M, .*, as in org/m:IQ4_XS"
    ):
        select_model(QUANTS, "org/m", quant)


def test_select_without_a_quantization() -> None:
    assert select_model(["only.gguf"], "here", None) == "only.gguf"
    assert select_model(QUANTS, "here", None, ("Q5_0", "Q4_0", "Q8_0")) == "m.Q4_0.gguf"
    with pytest.raises(ModelError, match=r"here has several GGUF models: IQ4_XS, .*; name one, as in here:IQ4_XS"):
        select_model(QUANTS, "here", None)
    with pytest.raises(ModelError, match="here has no GGUF model"):
        select_model([], "here", None)


def test_models_of_one_quantization_are_told_apart_by_name() -> None:
    names = ["a-Q4_0.gguf", "b-Q4_0.gguf", "c-Q8_0.gguf"]
    with pytest.raises(
        ModelError, match=r"several GGUF models named 'Q4_0': a-Q4_0.gguf, b-Q4_0.gguf; name one, as in x:a-Q4_0.gguf"
    ):
        select_model(names, "x", "Q4_0")
    assert select_model(names, "x", "a-Q4_0.gguf") == "a-Q4_0.gguf"
    assert select_model(names, "x", "b") == "b-Q4_0.gguf"


def test_a_long_list_is_cut() -> None:
    with pytest.raises(ModelError) as caught:
        select_model([f"m{number}.gguf" for number in range(1000)], "x", None)
    assert len(str(caught.value)) < 400
