"""Checkpoints that the converters' tests share: tiny ones of every architecture, made once, and their GGUF files."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from convert_command import convert
from ladder import Ladder
from small_llama import chats, rendered
from small_llama import small_llama as trained_small_llama
from tiny_checkpoints import TinyCheckpoint, plan_folder

from tapster.converters.gguf.quantize import Quantizer
from tapster.converters.gguf.writer import write_gguf
from tapster.converters.imatrix.collect import collect_imatrix


@pytest.fixture
def checkpoint(tiny_checkpoint: Callable[[str], TinyCheckpoint], tmp_path: Path) -> Path:
    """A Llama of random weights in a folder of its own, to be changed at will."""
    return Path(shutil.copytree(tiny_checkpoint("llama").folder, tmp_path / "models" / "tiny"))


@pytest.fixture(scope="session")
def demo_checkpoint(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model as a Hugging Face folder, made by the command."""
    folder = tmp_path_factory.mktemp("hf") / "SmolLM2"
    assert convert(demo_model, "--to", "hf", "--out", folder, "--quiet") == 0
    return folder


@pytest.fixture
def own_signals() -> Iterator[None]:
    """The command sets handlers of its own, which must not stay. What nohup ignores is sent here on purpose."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    if before[-1] is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def tiny_gguf(
    tiny_checkpoint: Callable[[str], TinyCheckpoint], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """The GGUF file of a recipe in a type that is written directly: F32, F16, BF16, Q8_0."""
    folder = tmp_path_factory.mktemp("gguf")

    @cache
    def make(recipe: str, type_name: str = "F32") -> Path:
        path = folder / f"{recipe}-{type_name}.gguf"
        write_gguf(path, plan_folder(tiny_checkpoint(recipe).folder), type_name)
        return path

    return make


@pytest.fixture(scope="session")
def llama_cpp_tree() -> Path:
    """llama.cpp's own converter, which llama-cpp-python's source distribution carries."""
    path = Path(os.environ.get("TAPSTER_LLAMA_CPP", ""))
    if not (path / "convert_hf_to_gguf.py").is_file():
        pytest.skip("no llama.cpp to compare with: set TAPSTER_LLAMA_CPP to a tree with convert_hf_to_gguf.py")
    return path


@pytest.fixture(scope="session")
def small_llama(shared_data: Path) -> Path:
    """The checkpoint of ``small_llama.py``, which has learnt something; trained the first time."""
    return trained_small_llama(shared_data)


@pytest.fixture(scope="session")
def small_llama_gguf(small_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in GGUF, in the 16 bits of the checkpoint."""
    path = tmp_path_factory.mktemp("small-llama") / "small-llama-BF16.gguf"
    write_gguf(path, plan_folder(small_llama), "BF16")
    return path


@pytest.fixture(scope="session")
def ladder(small_llama_gguf: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ladder]:
    """The small Llama in every type, each made when it is first asked for, and its importance matrix."""
    folder = tmp_path_factory.mktemp("ladder")
    imatrix = folder / "small-llama-imatrix.gguf"
    texts = [rendered(chat) for chat in chats(shared_data)[200:500]]
    collect_imatrix(small_llama_gguf, texts, imatrix, chunk_tokens=256)
    with Quantizer() as quantizer:
        yield Ladder(small_llama_gguf, imatrix, folder, quantizer)
