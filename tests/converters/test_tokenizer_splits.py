"""Every split that can be chosen is in llama.cpp what it is in the tokenizers library."""

import json
from pathlib import Path
from typing import Any

import pytest

from tapster.converters.checkpoint.checkpoint import Checkpoint
from tapster.converters.gguf.plan import ModelPlan
from tapster.converters.gguf.writer import write_gguf
from tapster.converters.tokenizer.check import check_tokenizer
from tapster.converters.tokenizer.corpus import PLAIN_TEXTS
from tapster.converters.tokenizer.pretokenizer import SPLITS, Split, choose_pretokenizer, split_named
from tapster.converters.tokenizer.read import read_vocabulary
from tapster.converters.tokenizer.source import open_tokenizer
from tapster.runtime.errors import ConversionError

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}

MARKS_APART = ("gpt-4o", "tekken")
"""llama.cpp's own forms of these expressions leave marks out of words: Arabic with vowels comes out otherwise."""


@pytest.fixture(scope="module")
def merged() -> dict[str, Any]:
    """A tokenizer.json whose merges run across words, so that every difference in splitting shows."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, show_progress=False, min_frequency=1)
    tokenizer.train_from_iterator(
        [*PLAIN_TEXTS, "a b c 12 3", "it's 1234567 x\n\n", "日本語2024", ".\n\n", "  \n "], trainer
    )
    return json.loads(tokenizer.to_str())


def described(merged: dict[str, Any], split: Split) -> dict[str, Any]:
    """The same merges behind a split."""
    normalizer = {"type": "NFC"} if split.has_nfc else None
    steps = {"type": "Sequence", "pretokenizers": split.steps}
    model = merged["model"] | {"ignore_merges": split.ignore_merges}
    return merged | {"pre_tokenizer": steps, "normalizer": normalizer, "model": model, "post_processor": None}


def checkpoint_of(description: dict[str, Any], folder: Path, **config: Any) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(description), "utf-8")
    return Checkpoint(folder, {}, {}, config, {}, {}, {})


def vocabulary_file(checkpoint: Checkpoint, path: Path, num_rows: int = 4000) -> Path:
    metadata = read_vocabulary(checkpoint, num_rows).metadata()
    write_gguf(path, ModelPlan("llama", {"general.architecture": "llama", **metadata}, []), "F32")
    return path


@pytest.mark.parametrize(
    "split", [split for split in SPLITS if split.pre not in MARKS_APART], ids=lambda split: split.pre
)
def test_llama_cpp_splits_the_same(split: Split, merged: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = checkpoint_of(described(merged, split), tmp_path / "source")
    path = vocabulary_file(checkpoint, tmp_path / "vocabulary.gguf")
    report = check_tokenizer(open_tokenizer(checkpoint), path, ["<|end|>"])
    assert report.tokens > 1000


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: split.pre)
def test_a_split_is_found_by_its_name_and_by_how_it_is_written(split: Split, merged: dict[str, Any]) -> None:
    assert choose_pretokenizer(described(merged, split)) == split.pre
    assert split_named(split.pre) is split


@pytest.mark.parametrize("pre", MARKS_APART)
def test_the_check_sees_what_llama_cpp_cannot_split(pre: str, merged: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = checkpoint_of(described(merged, split_named(pre)), tmp_path / "source")
    path = vocabulary_file(checkpoint, tmp_path / "vocabulary.gguf")
    with pytest.raises(ConversionError, match="مُشَكَّل"):
        check_tokenizer(open_tokenizer(checkpoint), path, [])


def test_the_check_sees_a_wrong_split(merged: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = checkpoint_of(described(merged, split_named("qwen2")), tmp_path / "source")
    vocabulary = read_vocabulary(checkpoint, 4000).metadata() | {"tokenizer.ggml.pre": "llama-bpe"}
    path = tmp_path / "wrong.gguf"
    write_gguf(path, ModelPlan("llama", {"general.architecture": "llama", **vocabulary}, []), "F32")
    with pytest.raises(ConversionError, match="other tokens than the checkpoint's tokenizer"):
        check_tokenizer(open_tokenizer(checkpoint), path, [])


def test_another_spelling_of_a_split_is_recognised(merged: dict[str, Any]) -> None:
    """As some converters write it: contractions by letter, and quantifiers that do not give back."""
    expression = (
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s*[\r\n]+|\s+(?!\S)|\s++"
    )
    step = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    description = described(merged, Split("", [step, BYTES], ignore_merges=True))
    assert choose_pretokenizer(description) == "llama-bpe"
    assert choose_pretokenizer(described(merged, Split("", [step, BYTES]))) == "smaug-bpe"


def test_an_unknown_split_is_refused_and_shown(merged: dict[str, Any]) -> None:
    step = {"type": "Split", "pattern": {"Regex": "[aeiou]"}, "behavior": "Isolated", "invert": False}
    with pytest.raises(ConversionError, match=r"\[aeiou\]"):
        choose_pretokenizer(described(merged, Split("", [step, BYTES])))
