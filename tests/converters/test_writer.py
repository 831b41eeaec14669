"""Writing GGUF: bytes against the gguf package, headers against its reader, values against the checkpoint."""

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from raw_checkpoint import Tensors, bfloat16, safetensors_bytes

from tapster.converters.checkpoint.safetensors import CheckpointTensor, read_safetensors
from tapster.converters.gguf.encode import encode
from tapster.converters.gguf.header import pack_header
from tapster.converters.gguf.plan import ModelPlan, TensorPlan, Value, row_chunks
from tapster.converters.gguf.reader import GGUFTensors
from tapster.converters.gguf.writer import write_gguf, write_ggufs
from tapster.runtime.errors import ConversionError
from tapster.runtime.gguf_header import read_header

TYPES = ("F32", "F16", "BF16", "Q8_0")
METADATA: dict[str, Value] = {"general.architecture": "llama"}
RNG = np.random.default_rng(7)


def checkpoint(folder: Path, tensors: Tensors) -> dict[str, CheckpointTensor]:
    path = folder / "model.safetensors"
    path.write_bytes(safetensors_bytes(tensors))
    return read_safetensors(path)


def model(*tensors: TensorPlan, metadata: dict[str, Value] = METADATA) -> ModelPlan:
    return ModelPlan("llama", metadata, list(tensors))


def gguf_bytes(values: np.ndarray, type_name: str) -> bytes:
    """What the gguf package stores for float32 values."""
    return quantize(values, gguf.GGMLQuantizationType[type_name]).tobytes()


def refusal(path: Path, plan: ModelPlan, type_name: str) -> str:
    with pytest.raises(ConversionError) as caught:
        write_gguf(path, plan, type_name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# encoding


def test_a_block_of_q8_0_by_hand() -> None:
    values = np.zeros(64, np.float32)
    values[:4] = 127.0, -63.5, 0.5, -1.49
    data = encode(values, "Q8_0")
    assert data[:2].view(np.float16)[0] == 1.0
    assert data[2:6].view(np.int8).tolist() == [127, -64, 1, -1]
    assert not data[6:].any()


def test_ties_round_to_even_in_bfloat16_by_hand() -> None:
    bits = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0xBF807FFF, 0x00008000, 0x7F7F7FFF], np.uint32)
    expected = [0x3F80, 0x3F82, 0x3F81, 0xBF80, 0x0000, 0x7F7F]
    assert encode(bits.view(np.float32), "BF16").view(np.uint16).tolist() == expected


def without_the_tiniest(values: np.ndarray) -> np.ndarray:
    """Below 1e-35 the inverse of a Q8_0 block's scale overflows; such a block reads as zeros whatever is in it."""
    return np.where(np.abs(values) < 1e-35, np.float32(0), values)


ROWS = hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(32)), elements=st.floats(-65504, 65504, width=32))


@settings(max_examples=100, deadline=None)
@given(values=ROWS)
def test_encoding_is_that_of_the_gguf_package(values: np.ndarray) -> None:
    for type_name in TYPES:
        known = without_the_tiniest(values) if type_name == "Q8_0" else values
        assert encode(known, type_name).tobytes() == gguf_bytes(known, type_name)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 0.02, 1.0, 3000.0])
def test_encoding_at_every_scale(scale: float) -> None:
    values = (RNG.standard_normal((400, 96)) * scale).astype(np.float32)
    for type_name in TYPES:
        assert encode(values, type_name).tobytes() == gguf_bytes(values, type_name)


def test_subnormal_values_round_as_in_the_gguf_package() -> None:
    values = (RNG.standard_normal(4096) * 1e-42).astype(np.float32)
    for type_name in ("F16", "BF16"):
        assert encode(values, type_name).tobytes() == gguf_bytes(values, type_name)
    tiny = encode(values, "Q8_0").reshape(-1, 34)
    assert not tiny[:, :2].any(), "the scale of such blocks is zero"


# headers


METADATA_VALUES: dict[str, Value] = {
    "general.architecture": "llama",
    "a.bool": True,
    "a.int": 4_294_967_295,
    "a.float": 0.1,
    "a.text": "ünï\n😀",
    "a.empty": "",
    "a.strings": ["", "a", "😀" * 100, "Ġthe"],
    "a.no_strings": [],
    "a.u64": np.uint64(1 << 63),
    "a.i64": np.int64(-5),
    "a.f64": np.float64(0.1),
    "a.int32s": np.array([-1, 2], np.int32),
    "a.floats": np.array([0.5, -1e10], np.float32),
    "a.bools": np.array([True, False]),
    "a.bytes": np.array([1, 255], np.uint8),
    "a.counts": np.array([3, 0], np.uint32),
}


def test_metadata_reads_back_in_both_readers(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    tensor = TensorPlan("t", (2, 32), constant=lambda: np.ones((2, 32)))
    write_gguf(path, model(tensor, metadata=METADATA_VALUES), "Q8_0")
    ours = dict(read_header(path).metadata)
    assert ours.pop("a.float") == pytest.approx(0.1)
    assert (ours.pop("general.file_type"), ours.pop("general.quantization_version")) == (7, 2)
    expected = {key: np.asarray(value).tolist() for key, value in METADATA_VALUES.items() if key != "a.float"}
    assert ours == expected
    theirs = gguf.GGUFReader(path)
    for key, value in expected.items():
        if key != "a.no_strings":  # its reader cannot read an empty array
            assert theirs.fields[key].contents() == value
    kinds = {key: theirs.fields[key].types[0].name for key in METADATA_VALUES}
    assert [kinds[f"a.{name}"] for name in ("bool", "int", "float", "u64", "i64", "f64", "text", "strings")] == [
        *("BOOL", "UINT32", "FLOAT32", "UINT64", "INT64", "FLOAT64", "STRING", "ARRAY")
    ]


def test_a_header_is_that_of_the_gguf_package_byte_for_byte(tmp_path: Path) -> None:
    strings, types = ["a", "", "😀"], np.array([1, 3, 6], np.int32)
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    writer.add_name("x")
    writer.add_context_length(512)
    writer.add_token_list(strings)
    writer.add_token_types(types.tolist())
    writer.add_layer_norm_rms_eps(1e-5)
    values = RNG.standard_normal((3, 2, 32)).astype(np.float32)
    writer.add_tensor("t.weight", values)
    writer.add_tensor("n.weight", values[0, 0, :5])
    writer.add_file_type(0)
    writer.add_quantization_version(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    metadata: dict[str, Value] = {
        "general.architecture": "llama",
        "general.name": "x",
        "llama.context_length": 512,
        "tokenizer.ggml.tokens": strings,
        "tokenizer.ggml.token_type": types,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }
    tensors = [
        TensorPlan("t.weight", (3, 2, 32), constant=lambda: values),
        TensorPlan("n.weight", (5,), constant=lambda: values[0, 0, :5]),
    ]
    write_gguf(tmp_path / "ours.gguf", model(*tensors, metadata=metadata), "F32")
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


@pytest.mark.parametrize("value", [-1, 1 << 32, "\ud800", ["a", "\ud800"], None, ["a", 1], 1e300, [object()], {}])
def test_a_value_that_gguf_cannot_hold_names_its_key(value: Any) -> None:
    with pytest.raises(ConversionError, match=r"the metadata key some\.key cannot hold"):
        pack_header({"some.key": value}, [])


def test_names_that_gguf_cannot_hold(tmp_path: Path) -> None:
    tensor = TensorPlan("n", (1,), constant=lambda: np.zeros(1))
    assert "planned twice" in refusal(tmp_path / "x", model(tensor, tensor), "F32")
    for name, shape in (("ü" * 32, (1,)), ("n", (1, 1, 1, 1, 1))):
        assert "too long" in refusal(tmp_path / "x", model(TensorPlan(name, shape)), "F32")


def test_a_vocabulary_without_tensors_is_a_file(tmp_path: Path) -> None:
    report = write_gguf(tmp_path / "x.gguf", model(), "BF16")
    header = read_header(tmp_path / "x.gguf")
    assert (header.tensors, report.bytes_written) == ([], header.file_bytes)


# tensors


def permuted(array: np.ndarray) -> np.ndarray:
    heads, columns = 2, array.shape[1]
    return array.reshape(heads, 2, -1, columns).swapaxes(1, 2).reshape(-1, columns)


@pytest.fixture
def source(tmp_path: Path) -> dict[str, CheckpointTensor]:
    values = RNG.standard_normal((8, 64)).astype(np.float32)
    return checkpoint(
        tmp_path,
        {
            "bf16": ("BF16", bfloat16(values)),
            "f16": ("F16", values.astype(np.float16)),
            "f32": ("F32", values),
            "f64": ("F64", values.astype(np.float64)),
            "norm": ("BF16", bfloat16(values[0])),
            "narrow": ("BF16", bfloat16(values[:, :40])),
            "cube": ("F16", values.reshape(2, 4, 64).astype(np.float16)),
            "none": ("F32", np.zeros((0, 32), np.float32)),
        },
    )


def plans(source: dict[str, CheckpointTensor]) -> tuple[list[TensorPlan], dict[str, np.ndarray]]:
    """Every way a tensor comes about, and what must come out in float32."""
    values = {name: tensor.float32() for name, tensor in source.items()}
    both = (source["bf16"], source["f16"])
    made = [
        *(TensorPlan(name, tensor.shape, (tensor,)) for name, tensor in source.items()),
        TensorPlan("permuted", (8, 64), (source["bf16"],), arrange=permuted),
        TensorPlan("turned", (64, 8), (source["f32"],), arrange=np.transpose, keep="F32"),
        TensorPlan("mixed", (16, 64), both, arrange=lambda *arrays: np.concatenate(arrays)),
        TensorPlan("stacked", (2, 8, 64), (source["bf16"],) * 2, arrange=lambda *arrays: np.stack(arrays)),
        TensorPlan("scaled", (8, 64), (source["bf16"],), compute=lambda array: array * 64),
        TensorPlan("plus_one", (64,), (source["norm"],), compute=lambda array: array + 1),
        TensorPlan("constant", (3, 32), constant=lambda: np.full((3, 32), 0.1)),
        TensorPlan("kept", (8, 64), (source["bf16"],), keep="F16"),
    ]
    expected = {
        **values,
        "permuted": permuted(values["bf16"]),
        "turned": values["f32"].T,
        "mixed": np.concatenate([values["bf16"], values["f16"]]),
        "stacked": np.stack([values["bf16"]] * 2),
        "scaled": values["bf16"] * 64,
        "plus_one": values["norm"] + 1,
        "constant": np.full((3, 32), 0.1, np.float32),
        "kept": values["bf16"],
    }
    return made, expected


def expected_type(name: str, file_type: str) -> str:
    if name in ("norm", "plus_one", "turned"):
        return "F32"
    return "F16" if name == "kept" or (name == "narrow" and file_type == "Q8_0") else file_type


@pytest.mark.parametrize("file_type", TYPES)
def test_every_kind_of_tensor(tmp_path: Path, source: dict[str, CheckpointTensor], file_type: str) -> None:
    tensors, expected = plans(source)
    heard: list[int] = []
    report = write_gguf(tmp_path / "x.gguf", model(*tensors), file_type, advance=heard.append)
    found = GGUFTensors(tmp_path / "x.gguf")
    assert list(found) == [tensor.name for tensor in tensors]
    for tensor in tensors:
        name, kind = tensor.name, expected_type(tensor.name, file_type)
        np.testing.assert_array_equal(tensor.float32(), expected[name], strict=True)
        assert (found[name].type, found[name].shape) == (kind, expected[name].shape)
        if expected[name].size:
            assert found[name].raw().tobytes() == gguf_bytes(expected[name], kind), name
    assert report.fallbacks == ({"narrow": "F16"} if file_type == "Q8_0" else {})
    assert report.bytes_written == (tmp_path / "x.gguf").stat().st_size
    assert sum(heard) == sum(part.num_bytes for tensor in tensors for part in tensor.sources)
    assert len(gguf.GGUFReader(tmp_path / "x.gguf").tensors) == len(tensors)


def test_several_files_from_one_read_are_the_same_as_each_alone(
    tmp_path: Path, source: dict[str, CheckpointTensor]
) -> None:
    tensors, _ = plans(source)
    targets = [(tmp_path / f"together-{name}.gguf", name) for name in TYPES]
    heard: list[int] = []
    reports = write_ggufs(targets, model(*tensors), advance=heard.append)
    for (path, name), report in zip(targets, reports, strict=True):
        alone = write_gguf(tmp_path / "alone.gguf", model(*tensors), name)
        assert path.read_bytes() == (tmp_path / "alone.gguf").read_bytes()
        assert report.fallbacks == alone.fallbacks
    assert sum(heard) == sum(part.num_bytes for tensor in tensors for part in tensor.sources)


def test_a_tensor_of_many_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tapster.converters.gguf import writer

    values = RNG.standard_normal((3001, 64)).astype(np.float32)
    source = checkpoint(tmp_path, {"a": ("F32", values), "b": ("BF16", bfloat16(values))})
    monkeypatch.setattr(writer, "_TASK_BYTES", 64 * 4 * 500)
    monkeypatch.setattr(writer, "row_chunks", lambda rows, width, limit=64 * 70: row_chunks(rows, width, limit))
    tensors = [
        TensorPlan("a", values.shape, (source["a"],)),
        TensorPlan("b", values.shape, (source["b"],)),
        TensorPlan("c", values.shape, (source["b"],), arrange=np.flipud),
    ]
    heard: list[int] = []
    write_gguf(tmp_path / "x.gguf", model(*tensors), "Q8_0", advance=heard.append)
    assert len(heard) == 7 + 4 + 1
    found = GGUFTensors(tmp_path / "x.gguf")
    for tensor, expected in zip(tensors, (values, source["b"].float32(), source["b"].float32()[::-1]), strict=True):
        assert found[tensor.name].raw().tobytes() == gguf_bytes(np.ascontiguousarray(expected), "Q8_0")
        np.testing.assert_array_equal(np.concatenate([part for _, part in tensor.float32_rows(700)]), expected)


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(0, 50), width=st.integers(0, 20), limit=st.integers(1, 100))
def test_chunks_cover_all_rows_once(rows: int, width: int, limit: int) -> None:
    chunks = list(row_chunks(rows, width, limit))
    assert [row for chunk in chunks for row in range(chunk.start, chunk.stop)] == list(range(rows))
    assert all(len(range(chunk.start, chunk.stop)) * width <= max(limit, width) for chunk in chunks)


# what cannot be written


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_value_that_is_not_finite_is_refused(tmp_path: Path, dtype: str, bad: float) -> None:
    values = np.ones((100, 32), np.float32)
    values[99, 31] = bad
    stored = {"BF16": bfloat16(values), "F16": values.astype(np.float16), "F32": values}[dtype]
    source = checkpoint(tmp_path, {"model.w": (dtype, stored)})
    tensor = TensorPlan("w", values.shape, (source["model.w"],))
    for type_name in TYPES:
        assert "the tensor w (model.w) has an infinity or NaN" in refusal(tmp_path / "x", model(tensor), type_name)


def test_arithmetic_that_overflows_is_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path, {"w": ("F64", np.full((1, 32), 1e300)), "v": ("F32", np.full(32, 1e38, np.float32))})
    doubled = TensorPlan("v", (32,), (source["v"],), compute=lambda array: array * np.float32(10))
    beyond = TensorPlan("w", (1, 32), (source["w"],))
    assert "the tensor w (w) has" in refusal(tmp_path / "x", model(beyond), "F32")
    assert "the tensor v (v) has" in refusal(tmp_path / "x", model(doubled), "F32")


def test_beyond_float16_is_refused_or_cut_off(tmp_path: Path) -> None:
    values = np.ones((4, 32), np.float32)
    values[1, 3], values[2, 5], values[3, 7] = 65536, -131072, 65280
    source = checkpoint(tmp_path, {"w": ("BF16", bfloat16(values))})
    plan = model(TensorPlan("w", (4, 32), (source["w"],)))
    path = tmp_path / "x.gguf"
    message = refusal(path, plan, "F16")
    assert "the tensor w has the value -131072, beyond float16's 65504" in message
    assert "--clamp" in message
    report = write_gguf(path, plan, "F16", clamp=True)
    assert report.clamped == {"w": 2}
    np.testing.assert_array_equal(GGUFTensors(path)["w"].float32(), np.clip(values, -65504, 65504))
    assert write_gguf(path, plan, "BF16").clamped == {}


def test_a_source_of_another_shape_is_refused(tmp_path: Path, source: dict[str, CheckpointTensor]) -> None:
    message = refusal(tmp_path / "x", model(TensorPlan("w", (64, 8), (source["bf16"],))), "F32")
    assert "the tensor w should have the shape (64, 8) and its source has (8, 64)" in message


def test_a_type_that_is_not_written_directly(tmp_path: Path) -> None:
    assert "Q4_K_M is not written directly" in refusal(tmp_path / "x", model(), "Q4_K_M")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fills_up_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    write = os.pwrite

    def full(descriptor: int, data: memoryview, position: int) -> int:
        if position >= 1 << 16:
            raise OSError(number, os.strerror(number))
        return write(descriptor, data[:5000], position)  # a write may be a part of what was asked for

    monkeypatch.setattr(os, "pwrite", full)
    tensor = TensorPlan("w", (1 << 14, 32), constant=lambda: np.ones((1 << 14, 32)))
    what = "cannot write" if number == errno.EIO else "the disk is full: x.gguf needs 0.0 GB"
    assert what in refusal(tmp_path / "x.gguf", model(tensor), "F32")


def test_too_little_space_is_noticed_before_anything_is_written(tmp_path: Path) -> None:
    tensor = TensorPlan("w", (1 << 40, 32), constant=lambda: np.ones((1, 1)))
    assert "are free" in refusal(tmp_path / "x.gguf", model(tensor), "F32")
    assert not (tmp_path / "x.gguf").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "file" / "x.gguf"
    path.parent.touch()
    assert "x.gguf" in refusal(path, model(), "F32")


def test_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    made: list[int] = []

    def constant() -> np.ndarray:
        made.append(1)
        return np.ones((1 << 12, 32))

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    tensors = [TensorPlan(f"w{idx}", (1 << 12, 32), constant=constant) for idx in range(1000)]
    with pytest.raises(KeyboardInterrupt):
        write_gguf(tmp_path / "x.gguf", model(*tensors), "Q8_0", advance=interrupted)
    assert len(made) < 500


# memory


MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from tapster.converters.checkpoint.safetensors import read_safetensors
from tapster.converters.gguf.plan import ModelPlan, TensorPlan
from tapster.converters.gguf.writer import write_ggufs
source = read_safetensors(Path(sys.argv[1]))
plans = [
    TensorPlan(name, tensor.shape, (tensor,), arrange=np.flipud if idx % 2 else None)
    for idx, (name, tensor) in enumerate(source.items())
]
targets = [(Path(sys.argv[2]) / name, name) for name in sys.argv[3:]]
write_ggufs(targets, ModelPlan("llama", {"general.architecture": "llama"}, plans))
status = Path("/proc/self/status")
if status.exists():  # on Linux getrusage would tell the peak of the process that started this one, if that is larger
    print(1024 * int(status.read_text().partition("VmHWM:")[2].split()[0]))
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_bytes(arguments: Sequence[object]) -> int:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_memory_stays_small_for_a_large_checkpoint(tmp_path: Path) -> None:
    """300 MB, of which the largest tensor is 128 MB: most of it is never in memory at the same time."""
    width = 1024
    shapes = {"embed": (1 << 16, width), **{f"layer.{idx}": (10752, width) for idx in range(8)}}
    offsets, end = {}, 0
    for name, shape in shapes.items():
        offsets[name] = (end, end + 2 * shape[0] * width)
        end = offsets[name][1]
    header = {
        name: {"dtype": "BF16", "shape": list(shape), "data_offsets": list(offsets[name])}
        for name, shape in shapes.items()
    }
    packed = safetensors_bytes({}, **header)
    block = bfloat16(RNG.standard_normal(1 << 20)).tobytes()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(packed)
        for _ in range(-(-end // len(block))):
            file.write(block)
        file.truncate(len(packed) + end)
    assert end > 300e6
    largest = 2 * shapes["embed"][0] * width
    peak = peak_bytes([tmp_path / "model.safetensors", tmp_path, "BF16", "F16"])
    assert peak < 400e6 + largest
    assert peak < 250e6, "a checkpoint of 300 MB should not need as much as itself"
