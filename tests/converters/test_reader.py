"""Reading GGUF tensors back: every type of ggml against the gguf package, by rows, in parts, and damaged."""

from contextlib import suppress
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_checkpoint import bfloat16

from tapster.converters.gguf import ggml
from tapster.converters.gguf.header import pack_header, place_tensors
from tapster.converters.gguf.plan import ModelPlan, TensorPlan
from tapster.converters.gguf.reader import GGUFTensors
from tapster.converters.gguf.writer import write_gguf
from tapster.runtime.errors import ConversionError, TapsterError
from tapster.runtime.ggml_types import GGML_TYPES, GGMLType

RNG = np.random.default_rng(3)
NUMBERS = ("F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64")
ROUNDED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS")
SEARCHED = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "TQ1_0", "TQ2_0")
"""Packing these takes tables that only the quantization of a whole file sets up, or weights of few values."""
BLOCKS = ROUNDED + SEARCHED


def write_raw(path: Path, type_name: str, raw: bytes, shape: tuple[int, ...]) -> Path:
    """A file with one tensor of these very bytes."""
    slots = place_tensors([("t", shape, type_name)])
    path.write_bytes(pack_header({"general.architecture": "llama"}, slots) + raw)
    return path


def random_blocks(type_name: str, rows: int, width: int) -> np.ndarray:
    """Random bytes as rows of blocks, with every pair of bytes that may be a scale a small float16."""
    raw = RNG.integers(0, 256, (rows, ggml.row_bytes(type_name, width)), np.uint8)
    raw.reshape(-1)[1::2] &= 0x3F  # a float16 with these upper bits is below 2, and finite
    return raw


@pytest.mark.parametrize("type_name", BLOCKS)
def test_blocks_mean_what_the_gguf_package_says(tmp_path: Path, type_name: str) -> None:
    raw = random_blocks(type_name, 6, 512)
    expected = dequantize(raw, gguf.GGMLQuantizationType[type_name])
    tensor = GGUFTensors(write_raw(tmp_path / "x.gguf", type_name, raw.tobytes(), (2, 3, 512)))["t"]
    assert (tensor.shape, tensor.num_rows, tensor.num_bytes) == ((2, 3, 512), 6, raw.nbytes)
    np.testing.assert_array_equal(tensor.raw(), raw)
    np.testing.assert_allclose(tensor.float32(), expected.reshape(2, 3, 512), rtol=1e-6, atol=0)
    np.testing.assert_array_equal(tensor.float32(slice(1, 4)), tensor.float32().reshape(6, 512)[1:4])
    tensor.release()
    parts = [(rows, values.copy()) for rows, values in tensor.float32_rows(1024)]
    assert [rows for rows, _ in parts] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    np.testing.assert_array_equal(np.concatenate([values for _, values in parts]), tensor.float32().reshape(6, 512))


@pytest.mark.parametrize("type_name", NUMBERS)
def test_numbers_are_themselves(tmp_path: Path, type_name: str) -> None:
    values = RNG.integers(-100, 100, (3, 8))
    kinds = {"F16": np.float16, "F32": np.float32, "F64": np.float64, "I8": np.int8, "I16": np.int16, "I32": np.int32}
    raw = bfloat16(values) if type_name == "BF16" else values.astype(kinds.get(type_name, np.int64))
    tensor = GGUFTensors(write_raw(tmp_path / "x.gguf", type_name, raw.tobytes(), (3, 8)))["t"]
    np.testing.assert_array_equal(tensor.float32(), values.astype(np.float32), strict=True)
    np.testing.assert_array_equal(tensor.float32(slice(2, 3)), values[2:].astype(np.float32), strict=True)


def test_a_model_reads_as_the_gguf_package_reads_it(tiny_model: Path) -> None:
    found = GGUFTensors(tiny_model)
    theirs = gguf.GGUFReader(tiny_model).tensors
    assert list(found) == [str(tensor.name) for tensor in theirs]
    assert found.metadata["general.architecture"] == "llama"
    for tensor in theirs:
        np.testing.assert_array_equal(found[str(tensor.name)].float32(), tensor.data, strict=True)


def test_a_real_model_is_all_finite_and_its_norms_are_about_one(demo_model: Path) -> None:
    found = GGUFTensors(demo_model)
    assert found["token_embd.weight"].shape == (49152, 576)
    for tensor in list(found.values())[:20]:
        values = tensor.float32()
        assert np.isfinite(values).all()
        assert 0.001 < np.sqrt(np.mean(values**2)) < 10
        tensor.release()


def test_a_model_in_two_parts(tmp_path: Path) -> None:
    for number, value in enumerate((1.0, 2.0)):
        metadata = {"general.architecture": "llama", "split.no": np.uint16(number), "split.count": np.uint16(2)}
        tensor = TensorPlan(f"t{number}", (1, 32), constant=lambda value=value: np.full((1, 32), value))
        plan = ModelPlan("llama", dict(metadata), [tensor])
        write_gguf(tmp_path / f"m-0000{number + 1}-of-00002.gguf", plan, "F16")
    found = GGUFTensors(tmp_path / "m-00001-of-00002.gguf")
    assert {name: tensor.float32()[0, 5] for name, tensor in found.items()} == {"t0": 1.0, "t1": 2.0}


@pytest.mark.parametrize("type_name", ROUNDED)
def test_packing_and_unpacking_loses_what_the_bits_say(type_name: str) -> None:
    values = RNG.standard_normal(256 * 64).astype(np.float32)
    error = ggml.dequantize(ggml.quantize(values, type_name), type_name) - values
    bits = 8 * ggml.row_bytes(type_name, 256) / 256
    assert 1.3 * 2.0**-bits < np.sqrt(np.mean(error**2)) < 2.6 * 2.0**-bits


def test_a_library_whose_table_differs_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ggml, "GGML_TYPES", {**GGML_TYPES, 8: GGMLType("Q8_0", 32, 36)})
    ggml._function.cache_clear()
    with pytest.raises(ConversionError, match="has no to_float for the type Q8_0"):
        ggml.dequantize(np.zeros(36, np.uint8), "Q8_0")
    with pytest.raises(ConversionError, match="has no to_float for the type F32"):
        ggml.dequantize(np.zeros(4, np.uint8), "F32")


@pytest.mark.parametrize("content", [None, b"", b"not a library"])
def test_a_library_that_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    ggml.library.cache_clear()
    ggml._function.cache_clear()
    if content is not None:
        ggml._library_path().write_bytes(content)
    with pytest.raises(ConversionError, match="cannot be used"):
        ggml.dequantize(np.zeros(34, np.uint8), "Q8_0")
    ggml.library.cache_clear()


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 400), new=st.binary(min_size=1, max_size=8))
def test_damaged_files_never_crash(tmp_path_factory: pytest.TempPathFactory, place: int, new: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    raw = random_blocks("Q4_K", 2, 256)
    whole = bytearray(write_raw(path, "Q4_K", raw.tobytes(), (2, 256)).read_bytes())
    place %= len(whole)
    whole[place : place + len(new)] = new
    path.write_bytes(whole)
    with suppress(TapsterError):
        for tensor in GGUFTensors(path).values():
            assert tensor.float32().shape == tensor.shape
