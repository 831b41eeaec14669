"""Vocabularies out of checkpoints: types, special ids, padding, what is refused, and what the check finds."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizer import save_tokenizer

from tapster.converters.checkpoint.checkpoint import Checkpoint
from tapster.converters.gguf.plan import ModelPlan
from tapster.converters.gguf.writer import write_gguf
from tapster.converters.tokenizer.check import GGUFTokenizer, TokenizerReport, check_tokenizer
from tapster.converters.tokenizer.pieces import read_pieces
from tapster.converters.tokenizer.read import read_vocabulary
from tapster.converters.tokenizer.rebuild import rebuild_tokenizer
from tapster.converters.tokenizer.source import open_tokenizer
from tapster.converters.tokenizer.vocabulary import TokenType, Vocabulary
from tapster.runtime.errors import ConversionError

NUM_ROWS = 330
TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "hello there, how are you? I am fine, thank you.",
    "def add(a, b): return a + b",
    "a great deal of text is needed to train even a small tokenizer",
    "naïve café, Straße, niño",
] * 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A byte-level tokenizer with ChatML's markers."""
    save_tokenizer(tmp_path)
    return tmp_path


def checkpoint_of(folder: Path, config: dict[str, Any] | None = None, **tokenizer_config: Any) -> Checkpoint:
    path = folder / "tokenizer_config.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    return Checkpoint(folder, config or {}, {}, found | tokenizer_config, {}, {}, {})


def edit(folder: Path, **values: Any) -> dict[str, Any]:
    """Replace top-level parts of tokenizer.json."""
    path = folder / "tokenizer.json"
    description = json.loads(path.read_text()) | values
    path.write_text(json.dumps(description))
    return description


def add_token(folder: Path, token_id: int, text: str, **flags: bool) -> None:
    tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    edit(folder, added_tokens=[*tokens, {"id": token_id, "content": text, **plain, **flags}])


def checked(checkpoint: Checkpoint, path: Path, *stops: str, num_rows: int = NUM_ROWS) -> TokenizerReport:
    """Write the vocabulary and compare."""
    write_vocabulary(read_vocabulary(checkpoint, num_rows), path)
    return check_tokenizer(open_tokenizer(checkpoint), path, stops)


def write_vocabulary(vocabulary: Vocabulary, path: Path) -> None:
    write_gguf(path, ModelPlan("llama", {"general.architecture": "llama", **vocabulary.metadata()}, []), "F32")


def size_of(folder: Path) -> int:
    return len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])


def test_added_tokens_have_their_types(folder: Path) -> None:
    size = size_of(folder)
    add_token(folder, size, "<tool>", special=True)
    add_token(folder, size + 1, "   ")
    found = read_vocabulary(checkpoint_of(folder), NUM_ROWS)
    assert found.types[size] == TokenType.CONTROL
    assert found.types[size + 1] == TokenType.USER_DEFINED
    assert found.id_of("<tool>") == size
    assert found.id_of("<nothing>") is None
    assert checked(checkpoint_of(folder), folder / "v.gguf", "<|end|>").notes == ()


def test_a_token_that_only_the_config_has(folder: Path) -> None:
    size = size_of(folder)
    config = {"added_tokens_decoder": {str(size): {"content": "<extra>", "special": True}}}
    checkpoint = checkpoint_of(folder, **config)
    assert read_vocabulary(checkpoint, NUM_ROWS).types[size] == TokenType.CONTROL
    assert open_tokenizer(checkpoint).encode("a<extra>")[-1] == size
    checked(checkpoint, folder / "v.gguf")


def test_rows_without_a_token_are_filled(folder: Path) -> None:
    size = size_of(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    edit(folder, model=model | {"vocab": model["vocab"] | {f"[PAD{size}]": size + 2}})
    found = read_vocabulary(checkpoint_of(folder), NUM_ROWS)
    assert len(found.tokens) == len(found.types) == NUM_ROWS == len(set(found.tokens))
    assert found.tokens[size : size + 2] == [f"[[PAD{size}]]", f"[PAD{size + 1}]"]
    assert found.types[size] == found.types[-1] == TokenType.UNUSED
    checked(checkpoint_of(folder), folder / "v.gguf")


def test_an_added_token_that_would_get_another_id(folder: Path) -> None:
    """The library numbers added tokens itself, so a gap before one moves it."""
    add_token(folder, size_of(folder) + 2, "<later>")
    with pytest.raises(ConversionError, match="'<later>' should have the id"):
        checked(checkpoint_of(folder), folder / "v.gguf")


def test_more_tokens_than_rows(folder: Path) -> None:
    size = size_of(folder)
    with pytest.raises(ConversionError, match=f"{size} tokens and the embedding {size - 1} rows"):
        read_vocabulary(checkpoint_of(folder), size - 1)


@pytest.mark.parametrize("text", ["the", "a\0b", "\ud800"])
def test_tokens_that_would_end_llama_cpp(folder: Path, text: str) -> None:
    size = size_of(folder)
    add_token(folder, size, text)
    with pytest.raises(ConversionError, match="token"):
        read_vocabulary(checkpoint_of(folder), NUM_ROWS)


def test_special_ids(folder: Path) -> None:
    checkpoint = checkpoint_of(
        folder,
        {"mask_token_id": 5, "sep_token_id": 9999, "eos_token_id": [7, 8]},
        unk_token={"content": "<|im_start|>"},
    )
    assert read_vocabulary(checkpoint, NUM_ROWS).special == {"bos": 0, "eos": 2, "pad": 0, "unk": 1, "mask": 5}


def test_bos_of_the_config_where_the_tokenizer_has_none(folder: Path) -> None:
    """A template would write it, and the tokenizer's own library writes nothing."""
    config: dict[str, Any] = {"bos_token_id": 1, "pad_token_id": 1}
    unnamed: dict[str, Any] = {"bos_token": None, "pad_token": None}
    assert read_vocabulary(checkpoint_of(folder, config, **unnamed), NUM_ROWS).special == {"eos": 2, "pad": 1}
    edit(folder, post_processor=template("<|im_start|>", "A"))
    assert read_vocabulary(checkpoint_of(folder, config, **unnamed), NUM_ROWS).special["bos"] == 1
    edit(folder, post_processor=None)
    (folder / "tokenizer_config.json").unlink()
    assert read_vocabulary(checkpoint_of(folder, config), NUM_ROWS).special == {"bos": 1, "pad": 1}


def template(*pieces: str) -> dict[str, Any]:
    """A post-processor; "A" stands for the text."""
    single = [
        {"Sequence": {"id": "A", "type_id": 0}} if p == "A" else {"SpecialToken": {"id": p, "type_id": 0}}
        for p in pieces
    ]
    ids = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    special = {p: {"id": p, "ids": [ids[p]], "tokens": [p]} for p in pieces if p != "A"}
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}


def test_the_post_processor_decides_what_is_added(folder: Path) -> None:
    edit(folder, post_processor=template("<|endoftext|>", "A"))
    checkpoint = checkpoint_of(folder, add_bos_token=False, add_eos_token=True)
    found = read_vocabulary(checkpoint, NUM_ROWS)
    assert (found.add_bos, found.add_eos) == (True, False)
    checked(checkpoint, folder / "v.gguf")
    with GGUFTokenizer(folder / "v.gguf") as target:
        assert target.encode("the", add_special=True)[0] == 0


def test_without_one_the_config_does(folder: Path) -> None:
    edit(folder, post_processor=None)
    found = read_vocabulary(checkpoint_of(folder, add_bos_token=True), NUM_ROWS)
    assert (found.add_bos, found.add_eos) == (True, False)
    assert read_vocabulary(checkpoint_of(folder), NUM_ROWS).add_bos is False


def test_the_first_token_is_bos_whatever_is_called_so(folder: Path) -> None:
    edit(folder, post_processor=template("<|im_start|>", "A", "<|im_end|>"))
    found = read_vocabulary(checkpoint_of(folder), NUM_ROWS)
    assert (found.special["bos"], found.special["eos"], found.add_bos, found.add_eos) == (1, 2, True, True)
    checked(checkpoint_of(folder), folder / "v.gguf")


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        (("<|endoftext|>", "<|im_start|>", "A"), "room for one token"),
        (("A", "<|im_start|>"), "not its eos token"),
    ],
)
def test_surroundings_that_gguf_cannot_hold(folder: Path, pieces: tuple[str, ...], reason: str) -> None:
    edit(folder, post_processor=template(*pieces))
    with pytest.raises(ConversionError, match=reason):
        read_vocabulary(checkpoint_of(folder), NUM_ROWS)


def test_composing_is_noted(folder: Path) -> None:
    edit(folder, normalizer={"type": "NFC"})
    (note,) = checked(checkpoint_of(folder), folder / "v.gguf").notes
    assert "NFC" in note


@pytest.mark.parametrize("normalizer", ["Lowercase", "NFKC", "StripAccents"])
def test_a_normalizer_that_llama_cpp_lacks(folder: Path, normalizer: str) -> None:
    steps = [{"type": "NFD"}, {"type": normalizer}] if normalizer == "StripAccents" else [{"type": normalizer}]
    edit(folder, normalizer={"type": "Sequence", "normalizers": steps})
    with pytest.raises(ConversionError, match=f"--no-verify converts .* does not have its normalizer .*{normalizer}"):
        checked(checkpoint_of(folder), folder / "v.gguf")


def test_a_token_that_eats_spaces_is_found(folder: Path) -> None:
    add_token(folder, size_of(folder), "<eats>", special=True, lstrip=True)
    with pytest.raises(ConversionError, match="<eats>"):
        checked(checkpoint_of(folder), folder / "v.gguf")


def test_a_wrong_id_is_found_in_a_merged_stop(folder: Path) -> None:
    """The vocabulary of another checkpoint, in which only the token of one stop string differs."""
    found = read_vocabulary(checkpoint_of(folder), NUM_ROWS)
    tokens = [*found.tokens]
    a, b = tokens.index("<"), tokens.index("|")
    tokens[a], tokens[b] = tokens[b], tokens[a]
    write_vocabulary(Vocabulary(**{**found.__dict__, "tokens": tokens}), folder / "v.gguf")
    with pytest.raises(ConversionError, match=r"instead of \["):
        check_tokenizer(open_tokenizer(checkpoint_of(folder)), folder / "v.gguf", ["<|end|>"])


def test_neither_file(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        open_tokenizer(checkpoint_of(tmp_path))
    with pytest.raises(ConversionError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        read_vocabulary(checkpoint_of(tmp_path), NUM_ROWS)


@pytest.mark.parametrize(
    "model",
    [
        {"type": "WordPiece", "vocab": {}},
        {"type": "BPE"},
        {"type": "BPE", "vocab": {"a": "b"}, "merges": []},
        {"type": "BPE", "vocab": {"a": -1}, "merges": []},
        {"type": "BPE", "vocab": ["a"], "merges": []},
        {"type": "BPE", "vocab": {"a": 0}, "merges": [["a b", "c"]]},
        {"type": "BPE", "vocab": {"a": 0}, "merges": [[1, 2]]},
        {"type": "BPE", "vocab": {"a": 0}, "merges": [], "continuing_subword_prefix": "##"},
        {"type": "Unigram", "vocab": [["a"]]},
        None,
    ],
)
def test_models_that_make_no_sense(folder: Path, model: Any) -> None:
    edit(folder, model=model, added_tokens=[])
    with pytest.raises(ConversionError):
        read_vocabulary(checkpoint_of(folder), NUM_ROWS)


STYLES: dict[str, dict[str, Any]] = {
    "llama": {"add_dummy_prefix": True},
    "gemma": {"add_dummy_prefix": False, "user_defined_symbols": ["<turn>", "▁▁", "▁▁▁"]},
}


def train_pieces(folder: Path, **options: Any) -> None:
    """A SentencePiece model by its own trainer."""
    sentencepiece: Any = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_prefix=str(folder / "tokenizer"),
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        **options,
    )


@pytest.fixture(scope="module", params=STYLES)
def pieces_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with byte tokens in the style of Llama 2's or of Gemma's."""
    folder = tmp_path_factory.mktemp(request.param)
    train_pieces(folder, vocab_size=400, model_type="bpe", byte_fallback=True, **STYLES[request.param])
    return folder / "tokenizer.model"


@pytest.fixture
def pieces(pieces_file: Path, tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.model").write_bytes(pieces_file.read_bytes())
    return tmp_path


def test_a_sentencepiece_model_of_its_own(pieces: Path) -> None:
    checkpoint = checkpoint_of(pieces, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    found = read_vocabulary(checkpoint, 410)
    assert (found.model, found.add_bos, found.add_eos) == ("llama", True, False)
    assert found.add_space_prefix is ("<turn>" not in found.tokens)
    assert found.types[:3] == [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    for text in ("<turn>", "  "):
        if text in found.tokens:
            assert found.types[found.tokens.index(text)] == TokenType.USER_DEFINED
    assert found.types.count(TokenType.BYTE) == 256
    assert found.special == {"bos": 1, "eos": 2, "unk": 0}
    report = checked(checkpoint, pieces / "v.gguf", "<|end|>", num_rows=410)
    assert report.tokens > 3000


def test_the_same_pieces_as_tokenizer_json(pieces: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is rebuilt from the GGUF vocabulary makes the tokens that sentencepiece itself makes."""
    checkpoint = checkpoint_of(pieces, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    vocabulary = read_vocabulary(checkpoint, 400)
    files = rebuild_tokenizer(
        {key: value.tolist() if hasattr(value, "tolist") else value for key, value in vocabulary.metadata().items()}
    )
    other = tmp_path_factory.mktemp("json")
    (other / "tokenizer.json").write_text(json.dumps(files.tokenizer))
    rebuilt = Checkpoint(other, {}, {}, files.config, {}, {}, {})
    write_vocabulary(vocabulary, pieces / "v.gguf")
    source, fast = open_tokenizer(checkpoint), open_tokenizer(rebuilt)
    for text in ["Hello  there", " the <turn> dog</s>x", "", "quick\n\nbrown 😀 é"]:
        assert source.encode(text) == fast.encode(text)
        assert source.encode_with_special(text) == fast.encode_with_special(text)
    check_tokenizer(fast, pieces / "v.gguf", ["<|end|>"])
    again = read_vocabulary(rebuilt, 400)
    assert (again.tokens, again.types, again.special) == (vocabulary.tokens, vocabulary.types, vocabulary.special)
    write_vocabulary(again, pieces / "again.gguf")
    check_tokenizer(source, pieces / "again.gguf", ["<|end|>"])


@pytest.mark.parametrize("has_template", [True, False])
def test_a_space_only_where_a_text_begins(
    pieces: Path, tmp_path_factory: pytest.TempPathFactory, has_template: bool
) -> None:
    """llama.cpp puts a space everywhere or nowhere: with a chat template nowhere, because prompts begin with bos."""
    vocabulary = read_vocabulary(checkpoint_of(pieces, bos_token="<s>", eos_token="</s>", unk_token="<unk>"), 400)
    metadata = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in vocabulary.metadata().items()}
    files = rebuild_tokenizer(metadata | {"tokenizer.ggml.add_space_prefix": False})
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    folder = tmp_path_factory.mktemp("first")
    (folder / "tokenizer.json").write_text(
        json.dumps(files.tokenizer | {"normalizer": None, "pre_tokenizer": metaspace})
    )
    templates = {"default": "{{ messages }}"} if has_template else {}
    checkpoint = Checkpoint(folder, {}, {}, files.config, {}, templates, {})
    assert read_vocabulary(checkpoint, 400).add_space_prefix is not has_template
    report = checked(checkpoint, folder / "v.gguf", "<|end|>", num_rows=400)
    assert report.texts > 40
    assert "space before a text" in report.notes[0]


def test_pieces_without_bytes_would_end_llama_cpp(tmp_path: Path) -> None:
    train_pieces(tmp_path, vocab_size=60)
    with pytest.raises(ConversionError, match="byte tokens"):
        read_vocabulary(checkpoint_of(tmp_path), 200)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_model_is_one_error(pieces_file: Path, data: st.DataObject) -> None:
    whole = pieces_file.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    start = data.draw(st.integers(0, max(cut - 1, 0)))
    damage = data.draw(st.binary(max_size=20))
    path = pieces_file.with_name("damaged.model")
    path.write_bytes(whole[:start] + damage + whole[start + len(damage) : cut])
    try:
        found = read_pieces(path)
    except ConversionError:
        return
    assert len(found.texts) == len(found.scores) == len(found.types) > 0
