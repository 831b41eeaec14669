"""GGUF vocabularies written as tokenizer.json: the tokenizers library has to make llama.cpp's tokens, and back."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapster.converters.checkpoint.checkpoint import Checkpoint
from tapster.converters.tokenizer.check import GGUFTokenizer, check_tokenizer
from tapster.converters.tokenizer.read import read_vocabulary
from tapster.converters.tokenizer.rebuild import rebuild_tokenizer
from tapster.converters.tokenizer.source import open_tokenizer
from tapster.runtime.errors import ConversionError
from tapster.runtime.gguf_header import read_header

STOPS = ("<|end|>", "### User:", "</s>")
NAMES = ("gpt-2", "gpt-neox", "llama-bpe", "llama-spm", "qwen2")


def rebuilt(gguf: Path, folder: Path) -> Checkpoint:
    """A checkpoint without weights that has the tokenizer of a GGUF file."""
    files = rebuild_tokenizer(read_header(gguf).metadata)
    (folder / "tokenizer.json").write_text(json.dumps(files.tokenizer, ensure_ascii=False), "utf-8")
    return Checkpoint(folder, {}, {}, files.config, {}, {}, {})


@pytest.fixture(params=NAMES, scope="module")
def pair(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Checkpoint]:
    """A vocabulary file and what was rebuilt from it."""
    path = shared_data / "vocab" / f"ggml-vocab-{request.param}.gguf"
    return path, rebuilt(path, tmp_path_factory.mktemp(request.param))


def test_same_tokens_over_the_corpus(pair: tuple[Path, Checkpoint]) -> None:
    path, checkpoint = pair
    report = check_tokenizer(open_tokenizer(checkpoint), path, STOPS)
    assert report.texts > 100
    assert report.tokens > 2000


def test_the_published_cases(pair: tuple[Path, Checkpoint]) -> None:
    path, checkpoint = pair
    cases = path.with_name(path.name + ".inp")
    if not cases.exists():
        pytest.skip("this vocabulary comes without cases")
    texts = cases.read_bytes().decode().split("\n__ggml_vocab_test__\n")[:-1]
    wanted = [[int(i) for i in line.split()] for line in Path(f"{path}.out").read_text().splitlines()]
    tokenizer = open_tokenizer(checkpoint)
    assert len(texts) == len(wanted) > 40
    assert [tokenizer.encode(text) for text in texts] == wanted


def test_the_vocabulary_comes_back(pair: tuple[Path, Checkpoint]) -> None:
    path, checkpoint = pair
    metadata = read_header(path).metadata
    tokens = metadata["tokenizer.ggml.tokens"]
    found = read_vocabulary(checkpoint, len(tokens))
    assert found.pre == metadata.get("tokenizer.ggml.pre", "default")
    assert found.model == metadata["tokenizer.ggml.model"]
    assert found.tokens == tokens
    assert found.types == metadata["tokenizer.ggml.token_type"]
    assert found.merges == metadata.get("tokenizer.ggml.merges")
    assert found.special["bos"] == metadata["tokenizer.ggml.bos_token_id"]
    assert found.special["eos"] == metadata["tokenizer.ggml.eos_token_id"]


def test_scores_keep_their_order(shared_data: Path, tmp_path: Path) -> None:
    """The rank of a token's first merge stands for its score: another number, the same decisions."""
    path = shared_data / "vocab" / "ggml-vocab-llama-spm.gguf"
    metadata = read_header(path).metadata
    found = read_vocabulary(rebuilt(path, tmp_path), 32000)
    assert found.scores is not None
    joined = [i for i, text in enumerate(found.tokens) if len(text) > 1 and found.types[i] == 1]
    by_score = sorted(joined, key=lambda i: -metadata["tokenizer.ggml.scores"][i])
    assert by_score == sorted(joined, key=lambda i: -found.scores[i] if found.scores else 0)


def test_the_demo_model(demo_model: Path, tmp_path: Path) -> None:
    checkpoint = rebuilt(demo_model, tmp_path)
    report = check_tokenizer(open_tokenizer(checkpoint), demo_model, STOPS)
    assert report.notes == ()
    metadata = read_header(demo_model).metadata
    found = read_vocabulary(checkpoint, 49152).metadata()
    for key, value in found.items():
        if key in metadata:
            assert (value.tolist() if hasattr(value, "tolist") else value) == metadata[key], key


def test_beginning_and_end_are_added_like_llama_cpp(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "vocab" / "ggml-vocab-llama-spm.gguf"
    source = open_tokenizer(rebuilt(path, tmp_path))
    with GGUFTokenizer(path) as target:
        assert source.encode_with_special("Hello") == target.encode("Hello", add_special=True)
        assert source.encode_with_special("Hello")[0] == 1


METADATA: dict[str, Any] = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.pre": "default",
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "a", "b", "ab"],
    "tokenizer.ggml.token_type": [2, 3, 1, 1, 1],
    "tokenizer.ggml.scores": [0.0, 0.0, -1.0, -2.0, -3.0],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.unknown_token_id": 0,
}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 9),
    st.text(max_size=3),
    st.lists(st.text(max_size=3)),
    st.lists(st.integers()),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["llama", "gpt2"]), st.dictionaries(st.sampled_from(sorted(METADATA)), VALUES, max_size=3))
def test_damaged_metadata_are_one_error(model: str, damage: dict[str, Any]) -> None:
    try:
        files = rebuild_tokenizer(METADATA | {"tokenizer.ggml.model": model} | damage)
    except ConversionError:
        return
    json.dumps(files)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ConversionError, match="'bert'"):
        rebuild_tokenizer({"tokenizer.ggml.model": "bert"})
    with pytest.raises(ConversionError, match="'kimi-k2'"):
        rebuild_tokenizer(
            {
                "tokenizer.ggml.model": "gpt2",
                "tokenizer.ggml.pre": "kimi-k2",
                "tokenizer.ggml.tokens": ["a"],
                "tokenizer.ggml.merges": [],
            }
        )
