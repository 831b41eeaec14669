"""Tokenizers of folders: the same ids and the same bytes as llama.cpp's, and exact bytes whatever the text."""

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_folders import CONFIG, edit, write_folder
from tiny_gguf import MERGES, _byte_letters

from tapster.converters.tokenizer.corpus import corpus
from tapster.converters.tokenizer.rebuild import rebuild_tokenizer
from tapster.runtime.engines.llamacpp.library import llama
from tapster.runtime.engines.llamacpp.tokenizer import LlamaTokenizer
from tapster.runtime.errors import ModelError
from tapster.runtime.gguf_header import read_header
from tapster.runtime.profile import load_profile
from tapster.runtime.tokenizer.ends import ENDS_BY_NAME
from tapster.runtime.tokenizer.folder import FolderTokenizer, open_tokenizer

NAMES = ("demo", "gpt-2", "gpt-neox", "llama-bpe", "llama-spm", "qwen2")
STOPS = ("<|end|>", "### User:")


class Pair(NamedTuple):
    """llama.cpp's tokenizer of a GGUF file, and ours of the tokenizer.json that was made of it."""

    theirs: LlamaTokenizer
    ours: FolderTokenizer

    def claimed(self) -> set[int]:
        """Ordinary tokens that llama.cpp takes for control tokens, by their name."""
        ids = range(self.ours.vocab_size)
        names = {i for i in ids if self.theirs.is_control(i) and self.theirs.piece(i).decode() in ENDS_BY_NAME}
        return names - self.ours._vocabulary.added.keys()


def llama_tokenizer(path: Path) -> tuple[LlamaTokenizer, Any]:
    params = llama().llama_model_default_params()
    params.vocab_only = True
    model = llama().llama_model_load_from_file(str(path).encode(), params)
    assert model
    return LlamaTokenizer(model), model


def rebuilt(path: Path, folder: Path) -> FolderTokenizer:
    metadata = read_header(path).metadata
    files = rebuild_tokenizer(metadata)
    config = {**CONFIG, "vocab_size": metadata.count("tokenizer.ggml.tokens"), "eos_token_id": None}
    write_folder(
        folder,
        config__json=config,
        generation_config__json={"eos_token_id": metadata["tokenizer.ggml.eos_token_id"]},
        tokenizer__json=json.dumps(files.tokenizer),
        tokenizer_config__json=files.config,
        model__safetensors=None,
    )
    return open_tokenizer(load_profile(folder))


@pytest.fixture(params=NAMES, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    if request.param == "demo":
        path = request.getfixturevalue("demo_model")
    else:
        path = request.getfixturevalue("shared_data") / "vocab" / f"ggml-vocab-{request.param}.gguf"
    theirs, model = llama_tokenizer(path)
    yield Pair(theirs, rebuilt(path, tmp_path_factory.mktemp(request.param)))
    llama().llama_model_free(model)


def test_the_same_ids_as_llama_cpp(pair: Pair) -> None:
    control = [pair.ours.piece(i).decode() for i in range(pair.ours.vocab_size) if pair.ours.is_control(i)][:20]
    texts = [*corpus(control, STOPS), "", "\ud83d half", "a\0b"]
    claimed = [pair.theirs.piece(i).decode() for i in pair.claimed()]
    assert len(claimed) <= 1
    for text in (text for text in texts if not any(name in text for name in claimed)):
        for parse in (True, False):
            ids = pair.ours.encode(text, parse_special=parse)
            assert ids == pair.theirs.encode(text, parse_special=parse), (text, parse)
            with_special = pair.ours.encode(text, add_special=True, parse_special=parse)
            assert with_special == pair.theirs.encode(text, add_special=True, parse_special=parse)


def test_the_same_bytes_ends_and_kinds_as_llama_cpp(pair: Pair) -> None:
    theirs, ours = pair
    assert ours.vocab_size == theirs.vocab_size
    ids = set(range(ours.vocab_size))
    assert [i for i in ids if ours.piece(i) != theirs.piece(i)] == []
    assert {i for i in ids if ours.is_control(i) != theirs.is_control(i)} == pair.claimed()
    assert ours.eog_ids == theirs.eog_ids - pair.claimed()
    assert (ours.bos_id, ours.eos_id, ours.add_bos) == (theirs.bos_id, theirs.eos_id, theirs.add_bos)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> FolderTokenizer:
    return open_tokenizer(load_profile(write_folder(tmp_path_factory.mktemp("small"))))


TEXT = st.text(st.characters() | st.sampled_from("the<|im_end|>\ud83d▁ \u0120é"), max_size=60)


@settings(deadline=None)
@given(text=TEXT, parse=st.booleans())
def test_joined_pieces_are_the_text(tokenizer: FolderTokenizer, text: str, parse: bool) -> None:
    ids = tokenizer.encode(text, parse_special=parse)
    assert b"".join(map(tokenizer.piece, ids)) == text.encode("utf-8", "replace")


def test_control_tokens_in_a_text_are_read_only_when_asked(tokenizer: FolderTokenizer) -> None:
    text = "a<|im_end|>b"
    assert 2 in tokenizer.encode(text)
    plain = tokenizer.encode(text, parse_special=False)
    assert not any(map(tokenizer.is_control, plain))
    assert b"".join(map(tokenizer.piece, plain)) == text.encode()


def test_ids_without_a_token_are_empty(tokenizer: FolderTokenizer) -> None:
    assert tokenizer.vocab_size == CONFIG["vocab_size"]
    assert (tokenizer.piece(tokenizer.vocab_size - 1), tokenizer.is_control(tokenizer.vocab_size - 1)) == (b"", False)
    with pytest.raises(IndexError):
        tokenizer.piece(tokenizer.vocab_size)


def test_a_long_text_has_the_ids_of_its_parts(tokenizer: FolderTokenizer) -> None:
    line = "the quick brown fox jumps\n"
    ids = tokenizer.encode(line)
    assert tokenizer.encode(line * 4000) == ids * 4000


def test_many_threads_at_once(tokenizer: FolderTokenizer) -> None:
    texts = [f"the fox <|im_end|> {number} " * 20 for number in range(40)]
    wanted = [(tokenizer.encode(text), tokenizer.encode(text, parse_special=False)) for text in texts]
    wrong: list[str] = []

    def work() -> None:
        for text, (special, plain) in zip(texts, wanted, strict=True):
            if tokenizer.encode(text) != special or tokenizer.encode(text, parse_special=False) != plain:
                wrong.append(text)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_added_tokens_that_only_tokenizer_config_has(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    size = open_tokenizer(load_profile(folder))._vocabulary.size
    edit(
        folder / "tokenizer_config.json",
        added_tokens_decoder={
            str(size): {"content": "<extra>", "special": False},
            str(size + 1): {"content": "<|end|>", "special": True},
        },
    )
    tokenizer = open_tokenizer(load_profile(folder))
    assert tokenizer.encode("a<extra>")[-1] == size
    assert (tokenizer.is_control(size), tokenizer.is_control(size + 1)) == (False, True)
    assert size + 1 in tokenizer.eog_ids
    edit(folder / "tokenizer_config.json", added_tokens_decoder={"315": {"content": "<gap>", "special": False}})
    with pytest.raises(ModelError, match=r"'<gap>' should have the id 315 and gets \d+: save the tokenizer again"):
        open_tokenizer(load_profile(folder))


def test_tokenizers_that_cannot_be_run(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    profile = load_profile(folder)
    edit(folder / "tokenizer.json", decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}, pre_tokenizer=None)
    with pytest.raises(ModelError, match=r"is a BPE tokenizer with the decoder WordPiece: byte-level BPE and Sentence"):
        open_tokenizer(profile)
    edit(folder / "tokenizer.json", decoder={"type": "NoSuch"}, normalizer={"type": "ByteLevel"})
    with pytest.raises(ModelError, match=r"tokenizer.json cannot be read \(.*\): save the tokenizer again"):
        open_tokenizer(profile)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has neither tokenizer.json nor tokenizer.model: save the tokenizer there"):
        open_tokenizer(profile)
    (folder / "tokenizer.model").write_bytes(b"\x0a\xff")
    with pytest.raises(ModelError, match=r"tokenizer.model is no SentencePiece model, or damaged: download it again"):
        open_tokenizer(profile)


SENTENCES = ["the quick brown fox jumps over the lazy dog", "Hello  there, wörld", "over and over again and again"] * 30


@pytest.fixture(scope="module", params=["llama", "gemma"])
def sentencepiece_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only a tokenizer.model, with a space before the text as in Llama 2 or without as in Gemma."""
    import sentencepiece

    folder = write_folder(tmp_path_factory.mktemp(request.param), tokenizer__json=None)
    trainer: Any = sentencepiece.SentencePieceTrainer
    trainer.train(
        sentence_iterator=iter(SENTENCES),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=310,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=request.param == "llama",
        minloglevel=2,
    )
    edit(folder / "tokenizer_config.json", bos_token="<s>", eos_token="</s>")
    return folder


@settings(deadline=None)
@given(text=TEXT)
def test_a_sentencepiece_model_of_its_own(sentencepiece_folder: Path, text: str) -> None:
    profile = load_profile(sentencepiece_folder)
    assert (profile.bos_id, profile.eos_id, profile.add_bos) == (1, 2, True)
    tokenizer = _cached(sentencepiece_folder)
    assert tokenizer.eog_ids >= {2}
    text = text.replace("▁", "")
    ids = tokenizer.encode(text)
    joined = b"".join(map(tokenizer.piece, ids))
    prefix = b" " if ids and "llama" in sentencepiece_folder.name else b""
    assert joined == prefix + text.encode("utf-8", "replace")
    assert tokenizer.encode(text, add_special=True) == [1, *ids]


def test_sentencepiece_s_control_tokens(sentencepiece_folder: Path) -> None:
    tokenizer = _cached(sentencepiece_folder)
    assert 2 in tokenizer.encode("the</s>")
    assert 2 not in tokenizer.encode("the</s>", parse_special=False)
    assert tokenizer.is_control(1)
    assert tokenizer.encode("") == []


_OPEN: dict[Path, FolderTokenizer] = {}


def _cached(folder: Path) -> FolderTokenizer:
    if folder not in _OPEN:
        _OPEN[folder] = open_tokenizer(load_profile(folder))
    return _OPEN[folder]


def ends_in_llama_cpp(names: Sequence[str], path: Path) -> tuple[set[str], set[str]]:
    """Of control tokens with these names: which end a generation, and which are control tokens still."""
    writer = gguf.GGUFWriter(path, "llama")
    for name in ("context_length", "embedding_length", "block_count", "head_count", "feed_forward_length"):
        getattr(writer, f"add_{name}")(8)
    tokens = [*_byte_letters(), "<own>", *names]
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * (len(tokens) - 256))
    writer.add_token_merges(MERGES[:1])
    writer.add_eos_token_id(256)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tokenizer, model = llama_tokenizer(path)
    found = {text for idx, text in enumerate(tokens) if idx in tokenizer.eog_ids} - {"<own>"}
    control = {text for idx, text in enumerate(tokens) if tokenizer.is_control(idx)} - {"<own>"}
    llama().llama_model_free(model)
    return found, control


def ends_here(names: Sequence[str], folder: Path) -> tuple[set[str], set[str]]:
    write_folder(folder)
    size = open_tokenizer(load_profile(folder))._vocabulary.size
    added = {str(size + idx): {"content": name, "special": True} for idx, name in enumerate(names)}
    edit(folder / "tokenizer_config.json", added_tokens_decoder=added, eos_token="<|im_start|>")
    edit(folder / "tokenizer.json", added_tokens=[])
    (folder / "generation_config.json").write_text("{}")
    edit(folder / "config.json", eos_token_id=1)
    tokenizer = open_tokenizer(load_profile(folder))
    texts = {name: size + idx for idx, name in enumerate(names)}
    found = {name for name, token_id in texts.items() if token_id in tokenizer.eog_ids}
    return found, {name for name, token_id in texts.items() if tokenizer.is_control(token_id)}


OTHERS = ["<|file|>", "<|eos|>", "<|turn_end|>", "<s>", "<pad>", "<|fim_prefix|>", "[/INST]", "<unk>"]


@pytest.mark.parametrize("name", sorted(ENDS_BY_NAME - {"<|endoftext|>", "<|im_end|>"}) + OTHERS)
def test_the_names_that_end_a_generation_are_llama_cpp_s(name: str, tmp_path: Path) -> None:
    assert ends_here([name], tmp_path) == ends_in_llama_cpp([name], tmp_path / "v.gguf")


@pytest.mark.parametrize(
    "names",
    [
        ["<|return|>", "<|call|>", "<|end|>"],
        ["<|flush|>", "<|calls|>", "<|end|>"],
        ["<|call|>", "<|end|>"],
        ["<|tool_response>", "</s>"],
    ],
)
def test_names_that_end_nothing_beside_others(names: list[str], tmp_path: Path) -> None:
    assert ends_here(names, tmp_path) == ends_in_llama_cpp(names, tmp_path / "v.gguf")


def test_ids_that_the_model_has_no_row_for_are_left_out(demo_model: Path, tmp_path: Path) -> None:
    tokenizer = rebuilt(demo_model, tmp_path)
    assert 2 in tokenizer.eog_ids
    tokenizer.limit(2)
    assert tokenizer.vocab_size == 2
    assert tokenizer.eog_ids == {0}
    tokenizer.limit(9)
    assert tokenizer.vocab_size == 2
