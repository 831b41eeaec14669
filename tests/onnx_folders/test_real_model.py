"""SmolLM2-135M as ONNX: the same greedy answer as transformers', and what its conversion takes."""

from pathlib import Path

import numpy as np
import pytest
from cached_session import CachedSession
from peak_memory import conversion_megabytes
from test_genai import genai_answer, reference_answer

from tapster.converters.checkpoint.checkpoint import open_checkpoint
from tapster.converters.huggingface.folder import gguf_to_huggingface
from tapster.converters.onnx.options import OnnxOptions
from tapster.converters.onnx.write import write_onnx

_PROMPT = "<|im_start|>user\nWrite three sentences about the sea.<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def checkpoint_folder(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "SmolLM2-135M"
    gguf_to_huggingface(demo_model, folder, dtype="BF16")
    return folder


@pytest.fixture(scope="module")
def prompt(checkpoint_folder: Path) -> list[int]:
    tokenizers = pytest.importorskip("tokenizers")
    return tokenizers.Tokenizer.from_file(str(checkpoint_folder / "tokenizer.json")).encode(_PROMPT).ids


def test_greedy_answers_are_equal(checkpoint_folder: Path, prompt: list[int], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    write_onnx(open_checkpoint(checkpoint_folder), tmp_path, OnnxOptions(type="fp32"))
    expected = reference_answer(checkpoint_folder, prompt)
    session = CachedSession(tmp_path, capacity=len(prompt) + len(expected))
    logits = session.run(np.array([prompt]), [len(prompt)])
    answer: list[int] = []
    for length in range(len(prompt) + 1, len(prompt) + len(expected) + 1):
        answer.append(int(logits[0, -1].argmax()))
        logits = session.run(np.array([answer[-1:]]), [length])
    assert answer == expected
    assert genai_answer(tmp_path, prompt) == expected


def test_int4_takes_little_memory(checkpoint_folder: Path, tmp_path: Path) -> None:
    """Its own process: the peak is of one conversion, with all its imports."""
    pytest.importorskip("onnx_ir")
    assert conversion_megabytes(checkpoint_folder, tmp_path, "int4") < 1000
    assert (tmp_path / "model.onnx.data").stat().st_size < 105e6
    assert (tmp_path / "model.onnx").stat().st_size < 1e6
