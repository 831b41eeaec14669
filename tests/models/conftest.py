"""Small GGUF files, written by the ``gguf`` package so that reader and writer are not the same hands."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFEndian, GGUFWriter

VOCABULARY = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|stop|>", "a", "b"]
CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
METADATA: dict[str, Any] = {
    "llama.context_length": 512,
    "tokenizer.ggml.tokens": VOCABULARY,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 4,
    "tokenizer.chat_template": CHATML,
}
WriteGGUF = Callable[..., Path]


@pytest.fixture
def write_gguf(tmp_path: Path) -> WriteGGUF:
    """Writes a model in order, but for what ``metadata`` (None leaves a key out) and ``tensors`` change."""

    def write(name: str = "model.gguf", metadata: Mapping[str, Any] = {}, **options: Any) -> Path:
        return _write(tmp_path / name, metadata, **options)

    return write


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a small model with most kinds of keys."""
    metadata = {"tapster.stop_strings": ["x"], "general.sampling.temp": 0.5, "general.type": "model"}
    tensors = {"token_embd.weight": np.zeros((len(VOCABULARY), 1), np.float32)}
    return _write(tmp_path_factory.mktemp("small") / "model.gguf", metadata, tensors=tensors).read_bytes()


def _write(
    path: Path,
    metadata: Mapping[str, Any],
    *,
    tensors: Mapping[str, Any] | None = None,
    endianess: GGUFEndian = GGUFEndian.LITTLE,
    split_max_tensors: int = 0,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, "llama", endianess=endianess, split_max_tensors=split_max_tensors)
    for key, value in {**METADATA, **metadata}.items():
        _add(writer, key, value)
    if tensors is None:
        tensors = {"token_embd.weight": np.zeros((len(VOCABULARY), 32), np.float32)}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_int32(key, value) if value < 0 else writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, value)
