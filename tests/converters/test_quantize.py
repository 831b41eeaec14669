"""Quantizing through the child process: every type runs, what falls back is told, and nothing is left of a failure."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from ladder import Ladder
from tiny_gguf import write_tiny_gguf

from tapster.converters.gguf import tensor_types
from tapster.converters.gguf.quantize import Quantizer
from tapster.converters.gguf.quantize_log import QuantizeLog
from tapster.converters.gguf.types import LADDER, quant_type
from tapster.converters.imatrix.file import Entry, Imatrix, write_imatrix
from tapster.runtime.engines.llamacpp.context import Batch, LlamaContext
from tapster.runtime.engines.llamacpp.library import llama, load_model
from tapster.runtime.engines.llamacpp.tokenizer import LlamaTokenizer
from tapster.runtime.errors import ConversionError
from tapster.runtime.gguf_header import read_header

PROMPT = "<|user|>\nHow many apples are there?\n<|assistant|>\n"
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def quantizer() -> Iterator[Quantizer]:
    with Quantizer() as quantizer:
        yield quantizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 64 and 128: no K-quant fits."""
    return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny-F32.gguf")


def generate(path: Path, num_tokens: int = 4) -> list[int]:
    """Greedy tokens after a prompt; every logit on the way is finite."""
    lib, model = llama(), load_model(path, None)
    tokenizer = LlamaTokenizer(model)
    context = LlamaContext(model, cells=64, max_seqs=1, batch_tokens=64, num_threads=1)
    batch, made, ids = Batch(64), [], tokenizer.encode(PROMPT)
    for _ in range(num_tokens):
        batch.clear()
        start = len(tokenizer.encode(PROMPT)) + len(made) - 1 if made else 0
        batch.add_run(ids, start, 0, all_outputs=False, last_output=True)
        assert context.decode(batch) == 0
        logits = context.logits(1)[0]
        assert np.isfinite(logits).all()
        made.append(int(logits.argmax()))
        ids = made[-1:]
    context.close()
    lib.llama_model_free(model)
    return made


def test_every_type_of_the_ladder_loads_and_generates(ladder: Ladder) -> None:
    reference = generate(ladder.source)
    for kind, path in zip(LADDER, ladder.all(), strict=True):
        report, header = ladder.reports[path], read_header(path)
        assert header.metadata["general.file_type"] == kind.file_type
        assert report.types == {tensor.name: tensor.type for tensor in header.tensors}
        assert kind.base in report.types.values()
        assert report.fallbacks == {}
        made = generate(path)
        if kind.bits > 8:
            assert made == reference


def test_bits_of_the_ladder_rise_with_the_files(ladder: Ladder) -> None:
    sizes = [
        ladder.make(name, with_imatrix=True).stat().st_size for name in ("IQ1_S", "Q2_K", "Q4_K_M", "Q6_K", "Q8_0")
    ]
    assert sizes == sorted(sizes)


def test_llama_cpp_itself_wants_a_matrix_for_the_types_that_need_one(
    small_llama_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_types, "_check_imatrix", lambda *_: None)
    with Quantizer() as quantizer:
        for kind in LADDER:
            if kind.needs_imatrix:
                with pytest.raises(ConversionError, match="imatrix"):
                    quantizer.quantize(small_llama_gguf, tmp_path / "never.gguf", kind.name)


def test_metadata_survives_and_says_which_matrix(ladder: Ladder) -> None:
    source, made = (read_header(path).metadata for path in (ladder.source, ladder.make("Q4_K_M", with_imatrix=True)))
    kept = {key: source[key] for key in source if key not in ("general.file_type", "general.quantization_version")}
    assert {key: made[key] for key in kept} == kept
    assert made["quantize.imatrix.file"] == ladder.imatrix.name
    assert made["quantize.imatrix.entries_count"] == 28


def test_progress_adds_up_to_the_source(quantizer: Quantizer, tiny: Path, tmp_path: Path) -> None:
    steps: list[float] = []
    quantizer.quantize(tiny, tmp_path / "made.gguf", "Q4_0", advance=steps.append)
    tensors = read_header(tiny).tensors
    assert len(steps) == len(tensors)
    assert sum(steps) == sum(tensor.size_bytes for tensor in tensors)


@pytest.mark.parametrize(
    ("name", "tensor", "fallback"),
    [
        ("Q4_K_M", "blk.0.attn_k.weight", ("Q4_K", "Q5_0")),
        ("Q4_K_M", "output.weight", ("Q6_K", "Q8_0")),
        ("Q6_K", "blk.1.ffn_down.weight", ("Q6_K", "Q8_0")),
        ("Q2_K", "blk.0.attn_q.weight", ("Q2_K", "Q4_0")),
        ("IQ4_XS", "blk.0.ffn_up.weight", ("IQ4_XS", "IQ4_NL")),
        ("Q5_0", "output.weight", ("Q6_K", "Q8_0")),
    ],
)
def test_what_falls_back_is_told(
    quantizer: Quantizer, tiny: Path, tmp_path: Path, name: str, tensor: str, fallback: tuple[str, str]
) -> None:
    report = quantizer.quantize(tiny, tmp_path / "made.gguf", name)
    assert report.fallbacks[tensor] == fallback
    assert all(report.types[told] == got for told, (_, got) in report.fallbacks.items())


def test_nothing_falls_back_where_rows_divide(quantizer: Quantizer, tiny: Path, tmp_path: Path) -> None:
    assert quantizer.quantize(tiny, tmp_path / "made.gguf", "Q8_0").fallbacks == {}


def test_types_of_single_tensors(quantizer: Quantizer, tiny: Path, tmp_path: Path) -> None:
    types = quantizer.quantize(
        tiny,
        tmp_path / "made.gguf",
        "Q4_0",
        tensor_types=[(r"blk\.0\.ffn_(up|gate)", "q8_0"), ("ffn_up", "Q5_1")],
        output_type="Q5_0",
        embedding_type="BF16",
    ).types
    assert types["blk.0.ffn_up.weight"] == types["blk.0.ffn_gate.weight"] == "Q8_0"
    assert types["blk.1.ffn_up.weight"] == "Q5_1"
    assert types["blk.1.ffn_gate.weight"] == "Q4_0"
    assert (types["output.weight"], types["token_embd.weight"]) == ("Q5_0", "BF16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "IQ2_XS"}, "IQ2_XS needs an importance matrix: make one with `tapster imatrix"),
        ({"tensor_types": [("attn_q", "IQ1_S")]}, "attn_q=IQ1_S needs an importance matrix"),
        ({"tensor_types": [("attn_qq", "Q8_0")]}, "'attn_qq' is in no tensor's name"),
        ({"tensor_types": [("attn_(", "Q8_0")]}, "no regular expression"),
        ({"tensor_types": [("attn_q", "Q9_0")]}, "no tensor type is called 'Q9_0', did you mean"),
        ({"output_type": "Q6_K"}, "its rows of 64 do not divide by 256"),
        ({"embedding_type": "IQ1_S"}, "token_embd.weight cannot be IQ1_S"),
        ({"type": "BF16", "tensor_types": [("attn_q", "Q8_0")]}, "choose a smaller type"),
        ({"imatrix": Path("nowhere.gguf")}, "cannot read the importance matrix nowhere.gguf"),
    ],
)
def test_what_cannot_be_done_is_refused(
    quantizer: Quantizer, tiny: Path, tmp_path: Path, options: dict, message: str
) -> None:
    with pytest.raises(ConversionError, match=re.escape(message)):
        quantizer.quantize(tiny, tmp_path / "made.gguf", **{"type": "Q4_0", **options})
    assert list(tmp_path.iterdir()) == []


def test_a_quantized_source_and_a_missing_folder_are_refused(quantizer: Quantizer, tiny: Path, tmp_path: Path) -> None:
    quantized = tmp_path / "quantized.gguf"
    quantizer.quantize(tiny, quantized, "Q4_0")
    with pytest.raises(ConversionError, match="is quantized already"):
        quantizer.quantize(quantized, tmp_path / "again.gguf", "Q4_1")
    with pytest.raises(ConversionError, match="no folder"):
        quantizer.quantize(tiny, tmp_path / "nowhere" / "made.gguf", "Q4_0")


def test_a_matrix_of_another_model_is_refused(quantizer: Quantizer, tiny: Path, ladder: Ladder, tmp_path: Path) -> None:
    other = Imatrix({"blk.9.attn_q.weight": Entry(np.ones((1, 64), np.float32), np.ones(1))})
    write_imatrix(tmp_path / "other.gguf", other)
    for imatrix, message in ((ladder.imatrix, "256 columns for blk.0.attn"), (tmp_path / "other.gguf", "none of its")):
        with pytest.raises(ConversionError, match=message):
            quantizer.quantize(tiny, tmp_path / "made.gguf", "Q4_0", imatrix=imatrix)


def test_a_child_that_dies_is_an_error_and_the_next_job_gets_another(
    quantizer: Quantizer, tiny: Path, ladder: Ladder, tmp_path: Path
) -> None:
    """It dies after the first tensor of a type that takes a second."""

    def kill(_done: float) -> None:
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.ZombieProcess):  # what it had said before is still being read
                if "quantize_worker" in " ".join(child.cmdline()):
                    child.kill()

    with pytest.raises(ConversionError, match=r"llama.cpp ended while it made .*made\.gguf"):
        quantizer.quantize(ladder.source, tmp_path / "made.gguf", "IQ4_NL", advance=kill)
    assert list(tmp_path.iterdir()) == []
    quantizer.quantize(tiny, tmp_path / "made.gguf", "Q4_0")
    assert read_header(tmp_path / "made.gguf").tensors


def test_an_interrupt_ends_the_child_and_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    def interrupt(_done: float) -> None:
        raise KeyboardInterrupt

    before = set(psutil.Process().children())
    with Quantizer() as quantizer:
        with pytest.raises(KeyboardInterrupt):
            quantizer.quantize(tiny, tmp_path / "made.gguf", "Q4_0", advance=interrupt)
        assert list(tmp_path.iterdir()) == []
        assert set(psutil.Process().children()) == before


def test_the_child_does_not_outlive_its_parent(ladder: Ladder, tmp_path: Path) -> None:
    """In the middle of a slow type the parent's end of the pipe closes, as it does when the parent is killed."""
    target = tmp_path / "made.gguf"
    job = {"source": str(ladder.source), "target": str(target), "file_type": quant_type("IQ2_XXS").file_type}
    job |= {
        "imatrix": str(ladder.imatrix),
        "tensor_types": [],
        "output_type": None,
        "embedding_type": None,
        "threads": 1,
    }
    command = [sys.executable, "-m", "tapster.converters.gguf.quantize_worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(json.dumps(job) + "\n")
        child.stdin.flush()
        for line in child.stdout:
            if json.loads(line).get("tensor") == "blk.0.attn_q.weight":
                break
        assert target.exists()
        child.stdin.close()
        assert child.wait(PATIENCE_S) == 0
    assert not target.exists()


def test_ctrl_c_in_a_terminal(tiny: Path, tmp_path: Path) -> None:
    """The whole thing in a process of its own, interrupted by the signal."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tapster.converters.gguf.quantize import Quantizer\n"
        "def slowly(_): print('working', flush=True); time.sleep(0.2)\n"
        "with Quantizer() as q: q.quantize(Path(sys.argv[1]), Path(sys.argv[2]), 'Q4_0', advance=slowly)\n"
    )
    target = tmp_path / "made.gguf"
    command = [sys.executable, "-c", code, str(tiny), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout
        process.stdout.readline()
        worker = psutil.Process(process.pid).children()[0]
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE_S) != 0
    assert not target.exists()
    deadline = time.monotonic() + PATIENCE_S
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_log_is_read_in_pieces() -> None:
    said: list[dict] = []
    log = QuantizeLog(lambda **message: said.append(message))
    for piece in (
        "[   1/   2] blk.0.attn_k.weight                  - [",
        " 576,  576,    1,    1], type =   bf16, ",
        "warning: blk.0.attn_q.weight                  - ncols    576 not divisible by 256 ",
        "(required for type    q4_K) ",
        "(WARNING: must use F16 due to unusual shape) ",
        "-> falling back to     f16\n",
        "llama_model_quantize: failed to quantize: requantizing from type q8_0 is disabled\n",
    ):
        log.feed(piece)
    assert said == [{"tensor": "blk.0.attn_k.weight"}, {"fallback": ["blk.0.attn_q.weight", "Q4_K", "F16"]}]
    assert log.reason() == "requantizing from type q8_0 is disabled"
