"""Importance matrices: the sums are those of the activations, runs resume, files are llama-imatrix's, and they help."""

import contextlib
import ctypes
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ladder import Ladder
from small_llama import chats, rendered
from tiny_gguf import write_tiny_gguf

from tapster.converters.gguf.reader import GGUFTensors
from tapster.converters.gguf.types import LADDER
from tapster.converters.imatrix import collect as collect_module
from tapster.converters.imatrix.calibration import calibration_texts
from tapster.converters.imatrix.collect import collect_imatrix
from tapster.converters.imatrix.file import Entry, Imatrix, read_imatrix, write_imatrix
from tapster.converters.imatrix.graph import Node, Scratch, operations
from tapster.converters.imatrix.observer import Observer
from tapster.converters.proof.divergence import measure_divergence
from tapster.runtime.engines.llamacpp.library import llama, load_model
from tapster.runtime.engines.llamacpp.tokenizer import LlamaTokenizer
from tapster.runtime.errors import ConversionError
from tapster.runtime.profile import load_profile

TEXT = "Hello, and then the end of the thing.<|end|>\n"
HF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
PATIENCE_S = 60.0
NOT_CALIBRATED = 40
"""Chats at the beginning that the ladder's importance matrix has not seen."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny-F32.gguf")


def collect(model: Path, out: Path, num_chunks: int = 4, **options) -> Imatrix:
    """The matrix over some chunks of 64 tokens."""
    collect_imatrix(model, [TEXT * (8 * num_chunks)], out, chunk_tokens=64, threads=1, **options)
    return read_imatrix(out)


def test_sums_are_those_of_transformers(small_llama: Path, small_llama_gguf: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    text = rendered([{"role": "user", "content": TEXT * 3}, {"role": "assistant", "content": "7 apples" * 40}])
    collect_imatrix(small_llama_gguf, [text], tmp_path / "i.gguf", chunk_tokens=64, threads=1)
    found = read_imatrix(tmp_path / "i.gguf")
    handle = load_model(small_llama_gguf, None)
    ids = LlamaTokenizer(handle).encode(text)
    llama().llama_model_free(handle)
    assert found.chunk_count == len(ids) // 64 >= 2

    model = AutoModelForCausalLM.from_pretrained(small_llama, dtype=torch.float32)
    sums: dict[str, np.ndarray] = {}

    def hook(name: str):
        def add(_module, inputs, _output) -> None:
            squares = inputs[0].detach().double().square().sum((0, 1)).numpy()
            sums[name] = sums.get(name, 0) + squares

        return add

    for layer, block in enumerate(model.model.layers):
        for theirs, ours in HF_NAMES.items():
            block.get_submodule(theirs).register_forward_hook(hook(f"blk.{layer}.{ours}.weight"))
    with torch.no_grad():
        for start in range(0, found.chunk_count * 64, 64):
            model(torch.tensor([ids[start : start + 64]]))
    assert set(found.entries) == set(sums)
    for name, entry in found.entries.items():
        assert entry.counts.tolist() == [found.chunk_count * 64]
        # llama.cpp multiplies bfloat16 weights with activations rounded to bfloat16
        error = np.linalg.norm(entry.sums[0] - sums[name]) / np.linalg.norm(sums[name])
        assert error < 0.02, name


def test_sums_of_what_a_product_is_given() -> None:
    rng = np.random.default_rng(0)
    with Scratch(1 << 20) as scratch:
        weight = scratch.tensor("F32", 8, 3, name="CUDA0#blk.0.attn_q.weight#0")
        stack = scratch.tensor("F32", 8, 3, 2, name="blk.0.attn_k_b.weight")
        rows = scratch.tensor("F32", 8, 20, 4)
        values = rng.normal(size=(4, 20, 8)).astype(np.float32)
        fill(rows, values)
        observer = Observer()
        for matrix in (weight, stack):
            product = scratch.product(matrix, rows)
            assert observer.callback(product, True, None)
            assert observer.callback(product, False, None)
        few = scratch.product(weight, scratch.tensor("F32", 8, 15))
        output = scratch.product(scratch.tensor("F32", 8, 3, name="output.weight"), rows)
        assert not observer.callback(few, True, None)
        assert not observer.callback(output, True, None)
        assert not observer.callback(rows, True, None)
        sums = observer.take()
    plain, counts = sums["blk.0.attn_q.weight"]
    assert counts.tolist() == [80]
    np.testing.assert_allclose(plain, np.square(values).sum((0, 1))[None], rtol=1e-5)
    split, counts = sums["blk.0.attn_k_b.weight"]
    assert counts.tolist() == [40]
    expected = [np.square(values[at::2]).sum((0, 1)) for at in (0, 1)]
    np.testing.assert_allclose(split, expected, rtol=1e-5)


def test_sums_of_experts_are_of_the_tokens_that_chose_them() -> None:
    rng = np.random.default_rng(0)
    chosen = np.array([[0, 2], [2, 0], [0, 3], [2, 3], [0, 2]], np.int32)
    with Scratch(1 << 20) as scratch:
        weights = scratch.tensor("F32", 8, 3, 4, name="blk.1.ffn_up_exps.weight")
        rows, ids = scratch.tensor("F32", 8, 1, 5), scratch.tensor("I32", 2, 5)
        values = rng.normal(size=(5, 1, 8)).astype(np.float32)
        fill(rows, values)
        fill(ids, chosen)
        observer = Observer()
        assert observer.callback(scratch.experts(weights, rows, ids), False, None)
        sums, counts = observer.take()["blk.1.ffn_up_exps.weight"]
    assert counts.tolist() == [4, 0, 4, 2]
    for expert in range(4):
        met = values[(chosen == expert).any(1), 0]
        np.testing.assert_allclose(sums[expert], np.square(met).sum(0), rtol=1e-5)
    means = Entry(sums.astype(np.float32), counts).mean_squares().reshape(4, 8)
    assert (means[1] == 1).all()
    np.testing.assert_allclose(means[3], sums[3] / 2, rtol=1e-6)


def fill(address: int, values: np.ndarray) -> None:
    """Put values where ggml has made room for them."""
    data = Node.from_address(address).data
    assert data
    ctypes.memmove(data, values.ctypes.data, values.nbytes)


def test_another_layout_of_tensors_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from tapster.converters.imatrix import graph

    class Shifted(ctypes.Structure):
        _fields_ = (("more", ctypes.c_int64), *Node._fields_)

    operations.cache_clear()
    monkeypatch.setattr(graph, "Node", Shifted)
    with pytest.raises(ConversionError, match="another layout"):
        operations()
    operations.cache_clear()


def test_an_error_in_the_middle_is_raised_when_c_code_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise MemoryError("in the callback")

    with Scratch(1 << 20) as scratch:
        product = scratch.product(scratch.tensor("F32", 8, 3, name="blk.0.attn_q.weight"), scratch.tensor("F32", 8, 20))
        observer = Observer()
        monkeypatch.setattr(observer, "_add", fail)
        assert observer.callback(product, True, None)
        assert not observer.callback(product, False, None)
        with pytest.raises(MemoryError, match="in the callback"):
            observer.take()


def test_an_interrupted_run_goes_on(tiny: Path, tmp_path: Path) -> None:
    whole = collect(tiny, tmp_path / "whole.gguf")

    def interrupt(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    out = tmp_path / "part.gguf"
    with pytest.raises(KeyboardInterrupt):
        collect(tiny, out, progress=interrupt)
    assert not out.exists()
    assert read_imatrix(tmp_path / "part.gguf.partial").chunk_count == 2
    seen: list[tuple[int, int]] = []
    resumed = collect(tiny, out, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, whole.chunk_count), *((done, whole.chunk_count) for done in range(3, whole.chunk_count + 1))]
    assert not (tmp_path / "part.gguf.partial").exists()
    assert resumed.chunk_count == whole.chunk_count
    for name, entry in whole.entries.items():
        np.testing.assert_allclose(resumed.entries[name].sums, entry.sums, rtol=1e-5)
        assert resumed.entries[name].counts.tolist() == entry.counts.tolist()


def test_only_the_same_run_goes_on(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "i.gguf"
    collect(tiny, out)
    assert collect_imatrix(tiny, [TEXT * 32], out, chunk_tokens=64).resumed_chunks == read_imatrix(out).chunk_count
    assert collect_imatrix(tiny, [TEXT * 32], out, chunk_tokens=32).resumed_chunks == 0
    assert collect_imatrix(tiny, ["No. " + TEXT * 32], out, chunk_tokens=32).resumed_chunks == 0
    other = write_tiny_gguf(tmp_path / "other.gguf", seed=1)
    assert collect_imatrix(other, ["No. " + TEXT * 32], out, chunk_tokens=32).resumed_chunks == 0
    assert collect_imatrix(other, ["No. " + TEXT * 32], out, chunk_tokens=32, resume=False).resumed_chunks == 0


def test_a_second_ctrl_c_waits_for_the_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is freed at the end is what the thread computes in."""
    events: list[str] = []
    begun = threading.Event()

    class Context:
        def __init__(self, _handle: object, observer: Observer, *_args: object) -> None:
            self.observer = observer

        def step(self, chunk: np.ndarray) -> None:
            if chunk[0]:
                begun.set()
                while not self.observer.stopped:
                    time.sleep(0.01)
                time.sleep(0.1)
            events.append(f"computed {chunk[0]}")

        def close(self) -> None:
            events.append("closed")

    class Impatient(ThreadPoolExecutor):
        interrupts = 2

        def shutdown(self, *args: Any, **options: Any) -> None:
            if self.interrupts:
                self.interrupts -= 1
                raise KeyboardInterrupt
            super().shutdown(*args, **options)

        def submit(self, *args: Any, **options: Any) -> Any:
            future = super().submit(*args, **options)
            if args[1][0]:
                assert begun.wait(PATIENCE_S)
                raise KeyboardInterrupt
            return future

    monkeypatch.setattr(collect_module, "WatchedContext", Context)
    monkeypatch.setattr(collect_module, "ThreadPoolExecutor", Impatient)
    watched = collect_module._watched(None, [np.array([0]), np.array([1])], 1)
    next(watched)
    with pytest.raises(KeyboardInterrupt):
        next(watched)
    assert events == ["computed 0", "computed 1", "closed"]


def test_ctrl_c_saves_what_was_collected(tiny: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tapster.converters.imatrix.collect import collect_imatrix\n"
        "collect_imatrix(Path(sys.argv[1]), [sys.argv[3] * 40000], Path(sys.argv[2]), chunk_tokens=64, threads=1,\n"
        "    progress=lambda done, total: print(done, flush=True))\n"
    )
    out = tmp_path / "i.gguf"
    command = [sys.executable, "-c", code, str(tiny), str(out), TEXT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout
        for line in process.stdout:
            if int(line) >= 3:
                break
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert "KeyboardInterrupt" in errors
    assert "Exception ignored" not in errors
    assert not out.exists()
    assert read_imatrix(tmp_path / "i.gguf.partial").chunk_count >= 3


def test_too_little_text_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="has 12 tokens and one chunk takes 512"):
        collect_imatrix(tiny, ["Hello"] * 12, tmp_path / "i.gguf")
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_what_llama_imatrix_writes(tiny: Path, tmp_path: Path) -> None:
    collect(tiny, tmp_path / "i.gguf", dataset="our text")
    reader = gguf.GGUFReader(tmp_path / "i.gguf")
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert fields["general.type"] == "imatrix"
    assert fields["imatrix.datasets"] == ["our text"]
    assert fields["imatrix.chunk_size"] == 64
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert {name.partition(".weight.")[2] for name in tensors} == {"in_sum2", "counts"}
    sums, counts = (tensors[f"blk.1.ffn_down.weight.{kind}"] for kind in ("in_sum2", "counts"))
    assert sums.shape.tolist() == [128, 1]
    assert counts.shape.tolist() == [1, 1]
    assert counts.data.reshape(-1).tolist() == [64 * fields["imatrix.chunk_count"]]


def some_imatrix() -> Imatrix:
    rng = np.random.default_rng(0)
    entries = {
        "blk.0.attn_q.weight": Entry(rng.random((1, 6), np.float32), np.array([512.0], np.float32)),
        "blk.0.ffn_up_exps.weight": Entry(rng.random((3, 4), np.float32), np.array([5.0, 0.0, 7.0], np.float32)),
    }
    return Imatrix(entries, ("a", "b"), 3, 512, {"tapster.note": "kept"})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    imatrix = some_imatrix()
    write_imatrix(tmp_path / "i.gguf", imatrix)
    found = read_imatrix(tmp_path / "i.gguf")
    assert (found.datasets, found.chunk_count, found.chunk_size) == (("a", "b"), 3, 512)
    assert found.facts == {"tapster.note": "kept"}
    for name, entry in imatrix.entries.items():
        np.testing.assert_array_equal(found.entries[name].sums, entry.sums)
        np.testing.assert_array_equal(found.entries[name].counts, entry.counts)
    assert [path.name for path in tmp_path.iterdir()] == ["i.gguf"]


def legacy(means: dict[str, list[float]], calls: int) -> bytes:
    """The older format, by its description in imatrix.cpp: mean squares times the number of calls."""
    data = struct.pack("<i", len(means))
    for name, values in means.items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, len(values))
        data += (np.array(values, "<f4") * np.float32(calls)).tobytes()
    return data + struct.pack("<ii", calls, 4) + b"text"


def test_the_older_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "i.dat"
    path.write_bytes(legacy({"blk.0.attn_q.weight": [0.5, 2.0], "blk.0.ffn_up.weight": [1.0, 4.0, 3.0]}, 7))
    found = read_imatrix(path)
    assert (found.datasets, found.chunk_count) == (("text",), 7)
    assert found.entries["blk.0.attn_q.weight"].mean_squares().tolist() == [0.5, 2.0]
    assert found.entries["blk.0.ffn_up.weight"].mean_squares().tolist() == [1.0, 4.0, 3.0]


def test_an_older_file_with_an_entry_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "i.dat"
    path.write_bytes(legacy({"blk.0.attn_q.weight": []}, 7))
    with pytest.raises(ConversionError, match="no importance matrix"):
        read_imatrix(path)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "damaged.gguf"


@settings(max_examples=150, deadline=None)
@given(data=st.data(), is_gguf=st.booleans())
def test_damaged_files_are_refused_or_have_numbers(damaged: Path, data: st.DataObject, is_gguf: bool) -> None:
    write_imatrix(damaged, some_imatrix())
    whole = damaged.read_bytes() if is_gguf else legacy({"blk.0.attn_q.weight": [0.5, 2.0]}, 7)
    cut = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if cut:
            cut[data.draw(st.integers(0, len(cut) - 1))] = data.draw(st.integers(0, 255))
    damaged.write_bytes(cut)
    with contextlib.suppress(ConversionError):
        entries = read_imatrix(damaged).entries.values()
        assert all(np.isfinite(entry.mean_squares()).all() for entry in entries)


def test_a_model_is_no_imatrix(tiny: Path) -> None:
    with pytest.raises(ConversionError, match="no importance matrix"):
        read_imatrix(tiny)


def test_the_calibration_text_is_in_the_form_of_the_models_chats(small_llama_gguf: Path) -> None:
    texts = calibration_texts(load_profile(small_llama_gguf))
    assert 50_000 < sum(len(text.encode()) for text in texts) < 130_000
    assert all("<|user|>\n" in text and "<|end|>" in text for text in texts)


def test_a_text_of_ones_own_is_put_into_chats_as_well(small_llama_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("A title\nSome text that follows it.\n")
    assert calibration_texts(load_profile(small_llama_gguf), path) == [
        "<|user|>\nA title\n<|assistant|>\nSome text that follows it.<|end|><|endoftext|>\n"
    ]


def under_five_bits() -> list[str]:
    """The types that can be made with and without a matrix."""
    return [kind.name for kind in LADDER if kind.bits < 5 and not kind.needs_imatrix]


@pytest.mark.parametrize("name", under_five_bits())
def test_our_matrix_lowers_the_error_of_every_weight(ladder: Ladder, name: str) -> None:
    """The error of a weight's products, for inputs of the measured sizes: what the matrix is there to make small."""
    imatrix, exact = read_imatrix(ladder.imatrix), GGUFTensors(ladder.source)
    helped, plain = (GGUFTensors(ladder.make(name, with_imatrix=with_imatrix)) for with_imatrix in (True, False))
    for tensor, entry in imatrix.entries.items():
        assert helped[tensor].type == plain[tensor].type
        importance = entry.mean_squares().astype(np.float64)
        losses = (file[tensor].float32() - exact[tensor].float32() for file in (helped, plain))
        errors = [float((np.square(loss) @ importance).sum()) for loss in losses]
        assert errors[0] < errors[1], tensor


def test_our_matrix_helps_under_five_bits(ladder: Ladder, shared_data: Path) -> None:
    """On text that the matrix has not seen. With 4096 tokens a few per cent in a single type are noise."""
    names = under_five_bits()
    assert len(names) == 11
    files = [ladder.make(name, with_imatrix=with_imatrix) for with_imatrix in (True, False) for name in names]
    texts = [rendered(chat) for chat in chats(shared_data)[:NOT_CALIBRATED]]
    found = measure_divergence(ladder.source, files, texts, context_tokens=256, num_tokens=4096)
    means = np.array([divergence.overall.mean for divergence in found]).reshape(2, -1)
    ratios = dict(zip(names, means[0] / means[1], strict=True))
    assert means.min() > 0
    assert max(ratios.values()) < 1.05, ratios
    assert np.exp(np.mean(np.log(list(ratios.values())))) < 0.92, ratios
    assert sum(ratio < 1 for ratio in ratios.values()) >= 9, ratios
