"""Architectures with the vocabulary that their real models have: same tokens, same logits."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from llama_logits import llama_logits
from tiny_checkpoints import make_checkpoint, plan_folder

from tapster.converters.checkpoint.checkpoint import open_checkpoint
from tapster.converters.gguf.writer import write_gguf
from tapster.converters.tokenizer.check import GGUFTokenizer
from tapster.converters.tokenizer.rebuild import rebuild_tokenizer
from tapster.converters.tokenizer.source import open_tokenizer
from tapster.runtime.gguf_header import read_header

PAIRS = (
    ("llama", "gpt-2"),
    ("mistral", "llama-spm"),
    ("smollm3", "llama-bpe"),
    ("stablelm", "gpt-neox"),
)
TEXT = "It's 12345 o'clock;\n\n\tnaïve    café — 日本語, 🙂!  def f(x):\n    return x**2\n" * 2


@pytest.mark.parametrize(("recipe", "name"), PAIRS)
def test_a_real_vocabulary(recipe: str, name: str, shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    metadata = read_header(shared_data / "vocab" / f"ggml-vocab-{name}.gguf").metadata

    def save(folder: Path) -> int:
        files = rebuild_tokenizer(metadata)
        (folder / "tokenizer.json").write_text(json.dumps(files.tokenizer))
        (folder / "tokenizer_config.json").write_text(json.dumps(files.config))
        return metadata.count("tokenizer.ggml.tokens") or 0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny = make_checkpoint(recipe, tmp_path / "tiny", save)
    path = tmp_path / "tiny.gguf"
    write_gguf(path, plan_folder(tiny.folder), "F32")
    tokens = open_tokenizer(open_checkpoint(tiny.folder)).encode(TEXT)
    with GGUFTokenizer(path) as tokenizer:
        assert tokenizer.encode(TEXT) == tokens
    np.testing.assert_allclose(llama_logits(path, tiny.tokens), tiny.logits, rtol=0, atol=1e-4)
