"""Safetensors: every dtype against torch, and whatever is wrong with a file ends in one ConversionError."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_checkpoint import bfloat16, safetensors_bytes, with_header
from safetensors.torch import save_file

from tapster.converters.checkpoint.dtypes import STORAGE, all_finite, to_float32
from tapster.converters.checkpoint.safetensors import read_safetensors
from tapster.runtime.errors import ConversionError

TORCH_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
}
ONE = {"a": ("F32", np.arange(6, dtype=np.float32).reshape(2, 3))}


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def refusal(tmp_path: Path, content: bytes) -> str:
    with pytest.raises(ConversionError) as caught:
        read_safetensors(written(tmp_path / "x.safetensors", content))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", STORAGE)
def test_every_dtype_reads_as_torch_reads_it(tmp_path: Path, dtype: str) -> None:
    size = STORAGE[dtype].itemsize
    raw = np.random.default_rng(1).integers(0, 2 if dtype == "BOOL" else 256, 4096 * size, np.uint8)
    tensor = torch.from_numpy(raw).view(TORCH_DTYPES[dtype]).reshape(64, 64)
    save_file({"t": tensor, "empty": torch.zeros(0, 3), "one": torch.tensor(2.5)}, tmp_path / "x.safetensors")
    found = read_safetensors(tmp_path / "x.safetensors")
    assert (found["t"].dtype, found["t"].shape, found["t"].num_bytes) == (dtype, (64, 64), raw.size)
    assert found["t"].bits().tobytes() == raw.tobytes()
    np.testing.assert_array_equal(found["t"].float32(), tensor.to(torch.float32).numpy())
    assert (found["empty"].float32().shape, found["one"].float32()) == ((0, 3), 2.5)
    found["t"].release()
    found["empty"].release()
    assert found["t"].bits().tobytes() == raw.tobytes()


def test_all_256_values_of_the_eight_bit_floats() -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    for dtype in ("F8_E4M3", "F8_E5M2"):
        expected = codes.view(TORCH_DTYPES[dtype]).to(torch.float32).numpy()
        np.testing.assert_array_equal(to_float32(codes.numpy(), dtype), expected)
        for code, value in enumerate(expected):
            assert all_finite(np.array([0, code], np.uint8), dtype) == np.isfinite(value)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_of_all_sixteen_bit_floats_the_infinite_ones_are_found(dtype: str) -> None:
    codes = np.arange(1 << 16, dtype=np.uint16).view(STORAGE[dtype])
    finite = np.isfinite(to_float32(codes, dtype))
    assert [all_finite(codes[idx : idx + 1], dtype) for idx in range(len(codes))] == finite.tolist()
    assert all_finite(codes[finite], dtype)
    assert all_finite(codes[:0], dtype)


@pytest.mark.parametrize("dtype", ["F32", "F64"])
def test_infinity_and_no_number_are_found_among_finite_ones(dtype: str) -> None:
    largest = np.finfo(STORAGE[dtype]).max
    values = np.array([0.0, -0.0, 1.0, -largest, largest, 5e-324], STORAGE[dtype])
    assert all_finite(values, dtype)
    for bad in (np.inf, -np.inf, np.nan, -np.nan):
        assert not all_finite(np.append(values, STORAGE[dtype].type(bad)), dtype)


def test_a_tensor_at_an_odd_place_is_read(tmp_path: Path) -> None:
    tensors = {"a": ("U8", np.array([7], np.uint8)), "b": ("BF16", bfloat16([1.5, -2.0]))}
    found = read_safetensors(written(tmp_path / "x.safetensors", safetensors_bytes(tensors)))
    assert found["b"].float32().tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ({"dtype": "F4", "shape": [2, 3], "data_offsets": [0, 24]}, "dtype 'F4'"),
        ({"dtype": ["F32"], "shape": [2, 3], "data_offsets": [0, 24]}, "cannot be read"),
        ({"shape": [2, 3], "data_offsets": [0, 24]}, "dtype None"),
        ({"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 24]}, "takes the bytes"),
        ({"dtype": "F32", "shape": [2, -3], "data_offsets": [0, 24]}, "shape"),
        ({"dtype": "F32", "shape": [2, True], "data_offsets": [0, 8]}, "shape"),
        ({"dtype": "F32", "shape": [1 << 62, 0], "data_offsets": [0, 0]}, "takes the bytes"),
        ({"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]}, "shape"),
        ({"dtype": "F32", "shape": "23", "data_offsets": [0, 24]}, "shape"),
        ({"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24, 48]}, "offsets"),
        ({"dtype": "F32", "shape": [2, 3], "data_offsets": [24, 0]}, "takes the bytes"),
        ({"dtype": "F32", "shape": [2, 3], "data_offsets": [4, 28]}, "leaves a gap"),
        ({"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, "8 bytes at its end belong to no tensor"),
        ({"dtype": "F32", "shape": [3, 3], "data_offsets": [0, 36]}, "truncated"),
        (None, "described by None"),
    ],
)
def test_a_wrong_entry_is_refused(tmp_path: Path, entry: Any, what: str) -> None:
    assert what in refusal(tmp_path, safetensors_bytes(ONE, a=entry))


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    second = {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]}
    assert "'b' overlaps the one before it" in refusal(tmp_path, safetensors_bytes(ONE, b=second))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"\x01\x00", "truncated"),
        (b"\xff" * 64, "is no safetensors file"),
        ((99_999_999).to_bytes(8, "little") + b"{}", "truncated: it needs 100,000,007 bytes and has 10"),
        (with_header(b"[]"), "no JSON object"),
        (with_header(b"{"), "no JSON"),
        (with_header(b"\xff\xfe{"), "no JSON"),
        (with_header(b"[" * 200_000), "no JSON"),
        (with_header(b'{"a": 1' + b"0" * 5000 + b"}"), "no JSON"),
        (with_header(b'{"a": {"dtype": "F32", "dtype": "F16"}}'), "'dtype' is in its header twice"),
        (with_header(b'{"a": {"shape": "' + b"\\n" * 500 + b'"}}'), "dtype None"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    message = refusal(tmp_path, content)
    assert what in message
    assert len(message) < 500


def test_cut_at_any_byte_it_is_refused(tmp_path: Path) -> None:
    whole = safetensors_bytes(ONE)
    for length in range(len(whole)):
        refusal(tmp_path, whole[:length])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*STORAGE, "F4", ""]) | JSON,
        "shape": st.lists(st.integers(0, 4) | st.integers(), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(0, 32) | st.integers(), min_size=2, max_size=2) | JSON,
    }
)


def outcome(path: Path, content: bytes) -> None:
    """Read all of it, or end in a ConversionError; anything else fails the test."""
    with suppress(ConversionError):
        for tensor in read_safetensors(written(path, content)).values():
            assert tensor.float32().shape == tensor.shape


@settings(max_examples=150, deadline=None)
@given(header=st.dictionaries(st.text(max_size=4), ENTRY | JSON, max_size=4), data=st.binary(max_size=64))
def test_made_up_headers_never_crash(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], data: bytes
) -> None:
    outcome(tmp_path_factory.getbasetemp() / "made-up.safetensors", with_header(json.dumps(header).encode(), data))


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 200), new=st.binary(min_size=1, max_size=4), cut=st.integers(0, 8))
def test_damaged_files_never_crash(tmp_path_factory: pytest.TempPathFactory, place: int, new: bytes, cut: int) -> None:
    whole = bytearray(safetensors_bytes({**ONE, "b": ("BF16", bfloat16([[1.0], [2.0]]))}))
    place %= len(whole)
    whole[place : place + len(new)] = new
    outcome(tmp_path_factory.getbasetemp() / "damaged.safetensors", bytes(whole[: len(whole) - cut]))


SMALL = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@settings(max_examples=60, deadline=None)
@given(shapes=st.dictionaries(st.text(max_size=6).filter(lambda name: name != "__metadata__"), SMALL, max_size=5))
def test_what_is_packed_is_unpacked(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[int, ...]]
) -> None:
    rng = np.random.default_rng(0)
    tensors = {name: ("F32", rng.normal(size=shape).astype(np.float32)) for name, shape in shapes.items()}
    path = written(tmp_path_factory.getbasetemp() / "packed.safetensors", safetensors_bytes(tensors))
    found = read_safetensors(path)
    assert found.keys() == tensors.keys()
    for name, (_, array) in tensors.items():
        np.testing.assert_array_equal(found[name].float32(), array, strict=True)
