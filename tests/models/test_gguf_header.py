"""The header reader: against the gguf package's own reader, and against every way a file can be broken."""

import ctypes
import importlib
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFEndian, GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st

from tapster.runtime.errors import ModelError
from tapster.runtime.ggml_types import FILE_TYPES, GGML_TYPES
from tapster.runtime.gguf_header import GGUFHeader, read_header

UINT8, UINT32, FLOAT32, STRING, ARRAY, UINT64 = 0, 4, 6, 8, 9, 10
F32, Q4_0 = 0, 2
HUGE = 2**64 - 1
EXTREMES = [0, 1, 255, 256, 2**31, 2**32 - 1, 2**63 - 1, 2**63, HUGE]


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


def u64(number: int) -> bytes:
    return struct.pack("<Q", number)


def string(text: bytes) -> bytes:
    return u64(len(text)) + text


def pair(key: bytes, value_type: int, value: bytes) -> bytes:
    return string(key) + u32(value_type) + value


def array(element_type: int, count: int, elements: bytes = b"") -> bytes:
    return u32(element_type) + u64(count) + elements


def tensor(name: bytes, shape: tuple[int, ...], tensor_type: int = F32, offset: int = 0) -> bytes:
    return string(name) + u32(len(shape)) + b"".join(map(u64, shape)) + u32(tensor_type) + u64(offset)


def file_of(
    pairs: tuple[bytes, ...] = (), tensors: tuple[bytes, ...] = (), data: bytes = b"", version: int = 3
) -> bytes:
    header = b"GGUF" + u32(version) + u64(len(tensors)) + u64(len(pairs)) + b"".join(pairs + tensors)
    return header + bytes(-len(header) % 32) + data


GOOD = file_of(
    (
        pair(b"general.architecture", STRING, string(b"llama")),
        pair(b"general.alignment", UINT32, u32(32)),
        pair(b"tokens", ARRAY, array(STRING, 3, string(b"a") + string(b"") + string("ü".encode()))),
        pair(b"scores", ARRAY, array(FLOAT32, 2, struct.pack("<2f", 0.5, -1))),
    ),
    (tensor(b"embedding", (8, 4)), tensor(b"quantized", (32, 2), Q4_0, offset=128)),
    data=bytes(128 + 36),
)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Any]:
    def read(content: bytes) -> Any:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        return read_header(path)

    return read


def test_reads_what_the_gguf_package_writes(write_gguf: Callable[..., Path]) -> None:
    metadata = {"float": 1e4, "negative": -1, "flag": True, "numbers": [1, -2, 3], "floats": [0.5]}
    tensors = {
        "a.weight": np.arange(96, dtype=np.float32).reshape(3, 32),
        "b.weight": np.zeros((2, 3, 64), np.float16),
        "c": np.zeros(5, np.int8),
    }
    path = write_gguf(metadata=metadata, tensors=tensors)
    header, reference = read_header(path), GGUFReader(path)

    assert list(header.metadata) == [key for key in reference.fields if not key.startswith("GGUF.")]
    assert {key: header.metadata[key] for key in header.metadata} == {
        key: reference.fields[key].contents() for key in header.metadata
    }
    found = [(tensor.name, tensor.shape, tensor.type, tensor.size_bytes) for tensor in header.tensors]
    assert found == [
        (tensor.name, tuple(tensor.shape.tolist()), tensor.tensor_type.name, tensor.n_bytes)
        for tensor in reference.tensors
    ]
    start = header.file_bytes - len(path.read_bytes()[reference.data_offset :])
    assert [start + tensor.offset for tensor in header.tensors] == [tensor.data_offset for tensor in reference.tensors]
    assert (header.version, header.alignment) == (3, reference.alignment)
    assert [tensor.parameters for tensor in header.tensors] == [96, 384, 5]


def test_arrays_are_decoded_when_read(read: Callable[[bytes], Any]) -> None:
    metadata = read(GOOD).metadata
    assert metadata.count("tokens") == 3
    assert metadata.count("general.architecture") is None
    assert metadata.count("absent") is None
    assert [metadata.item("tokens", idx) for idx in range(3)] == ["a", "", "ü"]
    assert metadata.item("scores", 1) == -1
    assert metadata["tokens"] == ["a", "", "ü"]
    assert metadata.item("tokens", 2) == "ü"
    assert metadata.count("tokens") == 3
    for idx in (-1, 2):
        with pytest.raises(IndexError):
            metadata.item("scores", idx)
    with pytest.raises(KeyError):
        metadata.item("absent", 0)


def test_bytes_that_are_no_utf8_are_replaced(read: Callable[[bytes], Any]) -> None:
    content = file_of(
        (pair(b"name", STRING, string(b"a\xffb")), pair(b"list", ARRAY, array(STRING, 1, string(b"\xc3"))))
    )
    assert dict(read(content).metadata) == {"name": "a\ufffdb", "list": ["\ufffd"]}


def test_version_2_and_another_alignment(read: Callable[[bytes], Any]) -> None:
    alignment = pair(b"general.alignment", UINT32, u32(64))
    content = file_of((alignment,), (tensor(b"x", (1,)), tensor(b"y", (1,), offset=64)), version=2)
    header = read(content + bytes(-len(content) % 64 + 68))
    assert (header.version, header.alignment) == (2, 64)


def test_the_demo_model(demo_model: Path) -> None:
    header = read_header(demo_model)
    assert len(header.tensors) == 272
    assert header.metadata.count("tokenizer.ggml.tokens") == 49152
    assert header.metadata.item("tokenizer.ggml.tokens", 2) == "<|im_end|>"
    assert header.metadata["llama.context_length"] == 8192
    assert sum(tensor.size_bytes for tensor in header.tensors) < header.file_bytes == demo_model.stat().st_size


@pytest.mark.parametrize("name", ["gpt-2", "gpt-neox", "llama-bpe", "llama-spm", "qwen2"])
def test_real_vocabularies(name: str) -> None:
    folder = os.environ.get("TAPSTER_DATA") or Path(__file__).parents[3] / "shared" / "data"
    path = Path(folder) / "vocab" / f"ggml-vocab-{name}.gguf"
    if not path.is_file():
        pytest.skip(f"no {path.name}: set TAPSTER_DATA to a folder that has vocab/{path.name}")
    metadata = read_header(path).metadata
    tokens = metadata["tokenizer.ggml.tokens"]
    assert len(tokens) == len(metadata["tokenizer.ggml.token_type"])
    last = len(tokens) - 1
    assert read_header(path).metadata.item("tokenizer.ggml.tokens", last) == tokens[last]


def test_type_table_is_that_of_the_gguf_package() -> None:
    for code, sizes in gguf.GGML_QUANT_SIZES.items():
        if code is not GGMLQuantizationType.Q8_1:  # 36 bytes in llama.cpp, 40 in the package; in no file
            assert GGML_TYPES[code] == (GGMLQuantizationType(code).name, *sizes)
    for code in gguf.LlamaFileType:
        if code is not gguf.LlamaFileType.GUESSED:
            assert FILE_TYPES[code] == code.name.removeprefix("MOSTLY_").removeprefix("ALL_")


def test_type_table_is_that_of_llama_cpp() -> None:
    ggml = importlib.import_module("llama_cpp._ggml").libggml
    ggml.ggml_type_name.restype = ctypes.c_char_p
    ggml.ggml_type_size.restype = ctypes.c_size_t
    ggml.ggml_blck_size.restype = ctypes.c_int64
    for code, (name, block_size, block_bytes) in GGML_TYPES.items():
        assert ggml.ggml_type_name(code).decode().upper() == name
        assert (ggml.ggml_blck_size(code), ggml.ggml_type_size(code)) == (block_size, block_bytes)


def key(value_type: int, value: bytes) -> bytes:
    return file_of((pair(b"k", value_type, value),))


def alignment(value_type: int, value: bytes) -> bytes:
    return file_of((pair(b"general.alignment", value_type, value),))


def tensors(*descriptions: bytes, data: bytes = b"") -> bytes:
    return file_of((), descriptions, data)


X = tensor(b"x", (8,))
BROKEN = {
    "empty": (b"", "has only 0 bytes"),
    "no GGUF": (b"PK\x03\x04" + bytes(100), r"is no GGUF file: it starts with b'PK\\x03\\x04'"),
    "version 0": (file_of(version=0), "is GGUF version 0"),
    "version 1": (file_of(version=1), "is GGUF version 1; versions 2 and 3"),
    "version 4": (file_of(version=4), "is GGUF version 4"),
    "byte-swapped": (file_of(version=3 << 24), "for big-endian machines"),
    "too many tensors": (b"GGUF" + u32(3) + u64(HUGE) + u64(0), f"says it has {HUGE} tensors"),
    "too many keys": (b"GGUF" + u32(3) + u64(0) + u64(2**40), "metadata keys, more than fit"),
    "long key": (file_of((u64(2**40) + b"key" + bytes(20),)), "runs past the end"),
    "longest key": (file_of((u64(HUGE) + b"key" + bytes(20),)), "runs past the end"),
    "empty key": (file_of((pair(b"", UINT32, u32(1)),)), "key '' is empty"),
    "key twice": (file_of((pair(b"k", UINT32, u32(1)),) * 2), "key 'k' is there twice"),
    "long string": (key(STRING, u64(1000)), "a string of 1000 bytes runs past the end"),
    "unknown value": (key(13, u64(1)), "key 'k' has the unknown value type 13"),
    "array of arrays": (key(ARRAY, array(ARRAY, 1, array(UINT8, 0))), "'k' is an array of arrays"),
    "array of unknown": (key(ARRAY, array(99, 1)), "'k' is an array of the unknown type 99"),
    "long array": (key(ARRAY, array(UINT64, 2**61)), "array 'k' runs past the end"),
    "long strings": (key(ARRAY, array(STRING, HUGE)), "array 'k' runs past the end"),
    "long last string": (key(ARRAY, array(STRING, 1, u64(10**6))), "array 'k' runs past the end"),
    "long first string": (key(ARRAY, array(STRING, 2, u64(HUGE) + u64(1))), "runs past the end"),
    "alignment 0": (alignment(UINT32, u32(0)), "power of two"),
    "alignment 48": (alignment(UINT32, u32(48)), "power of two .* not 48"),
    "alignment type": (alignment(UINT64, u64(32)), "stored as uint32"),
    "tensor twice": (tensors(X, X), "tensor 'x' is there twice"),
    "tensor name": (tensors(tensor(b"x" * 64, (8,))), "a tensor name is longer than 63 bytes"),
    "5 dimensions": (tensors(tensor(b"x", (1, 1, 1, 1, 1))), "tensor 'x' has 5 dimensions"),
    "unknown type": (tensors(tensor(b"x", (8,), 31)), "tensor 'x' has type 31, which ggml does not know"),
    "half a block": (tensors(tensor(b"x", (16, 2), Q4_0)), r"type Q4_0 and shape \(16, 2\)"),
    "impossible shape": (tensors(tensor(b"x", (2**32, 2**32))), "cannot be of type F32"),
    "impossible empty shape": (tensors(tensor(b"x", (2**63, 0))), "cannot be of type F32"),
    "gap": (tensors(X, tensor(b"y", (8,), offset=64), data=bytes(99)), "'y' is at 64, expected at 32"),
    "overlap": (tensors(X, tensor(b"y", (8,)), data=bytes(99)), "'y' is at 0, expected at 32"),
    "no data": (tensors(X), "is truncated: it needs 96 bytes and has 64; download it again"),
    "huge tensor": (tensors(tensor(b"x", (2**40,))), "needs 4,398,046,511,168 bytes and has 64"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(name: str, read: Callable[[bytes], Any]) -> None:
    content, message = BROKEN[name]
    with pytest.raises(ModelError, match=message) as caught:
        read(content)
    assert "model.gguf" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    for size in range(len(GOOD)):
        path.write_bytes(GOOD[:size])
        with pytest.raises(ModelError):
            read_header(path)
    path.write_bytes(GOOD)
    assert len(read_header(path).tensors) == 2


def test_a_big_endian_file(write_gguf: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match=r"for big-endian machines.*gguf-convert-endian"):
        read_header(write_gguf(endianess=GGUFEndian.BIG))


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read .*absent.gguf: No such file"):
        read_header(tmp_path / "absent.gguf")
    with pytest.raises(ModelError, match="cannot read"):
        read_header(tmp_path)
    with pytest.raises(ModelError, match="cannot read"):
        read_header("a\0b")


def test_what_a_damaged_header_announces_is_not_allocated(tmp_path: Path) -> None:
    """A sparse file of 2 GB that says it holds an array of nearly that size, and one of as many strings."""
    path = tmp_path / "model.gguf"
    for element_type, count in ((UINT8, 2**31 - 200), (STRING, 2**27)):
        path.write_bytes(file_of((pair(b"k", ARRAY, array(element_type, count)),)))
        os.truncate(path, 2**31)
        tracemalloc.start()
        try:
            with pytest.raises(ModelError, match="runs past the end"):
                read_header(path)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()


def replaced(content: bytes, position: int, new: bytes) -> bytes:
    position %= len(content)
    return content[:position] + new + content[position + len(new) :]


mutations = st.lists(
    st.tuples(
        st.integers(0, len(GOOD)),
        st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(EXTREMES).map(u64), st.integers(0, 20).map(u32)),
    ),
    min_size=1,
    max_size=4,
)


def header_or_refusal(path: Path) -> GGUFHeader | str:
    try:
        return read_header(path)
    except ModelError as error:
        return str(error)


@settings(max_examples=1000, deadline=None)
@given(mutations=mutations, cut=st.one_of(st.none(), st.integers(0, len(GOOD))), inserted=st.binary(max_size=16))
def test_a_mutated_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    mutations: list[tuple[int, bytes]],
    cut: int | None,
    inserted: bytes,
) -> None:
    content = GOOD
    for position, new in mutations:
        content = replaced(content, position, new)
    if cut is not None:
        content = content[:cut] + inserted + content[cut:]
    path = tmp_path_factory.getbasetemp() / "mutated.gguf"
    path.write_bytes(content)
    found = header_or_refusal(path)
    if isinstance(found, str):
        assert "\n" not in found
    else:
        assert len(dict(found.metadata)) == len(found.metadata)
        assert all(tensor.offset + tensor.size_bytes <= len(content) for tensor in found.tensors)
