"""The divergence between models: the arithmetic against float64, and real models against each other."""

import json
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf_copy import copy_gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from tapster.converters.proof import divergence as divergence_module
from tapster.converters.proof.divergence import cut_chunks, measure_divergence
from tapster.converters.proof.figures import Divergence, MeasuredText, divergence_of, shown
from tapster.converters.proof.softmax import Comparison, Reference
from tapster.converters.proof.texts import chat_texts, read_conversations, text_source
from tapster.converters.proof.vocabulary import open_vocabulary
from tapster.runtime.errors import ConfigError, ProofError
from tapster.runtime.profile import load_profile


def slow(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The definition, in float64."""

    def log_softmax(logits: np.ndarray) -> np.ndarray:
        logits = logits.astype(np.float64)
        logits = logits - logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    p, q = log_softmax(reference), log_softmax(other)
    return (np.exp(p) * (p - q)).sum(axis=1)


def compare(reference: np.ndarray, other: np.ndarray, targets: np.ndarray | None = None) -> Comparison:
    targets = np.zeros(len(reference), int) if targets is None else targets
    return Reference(reference, targets, np.empty_like(reference)).compare(other.copy())


def test_two_tokens_by_hand() -> None:
    p, q = np.log(np.array([[0.75, 0.25]], np.float32)), np.log(np.array([[0.5, 0.5]], np.float32)) + 3
    found = compare(p, q, np.array([1]))
    assert found.divergence[0] == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5), abs=5e-7)
    assert found.surprise[0] == pytest.approx(np.log(2), rel=1e-6)
    assert found.reference_surprise[0] == pytest.approx(np.log(4), rel=1e-6)
    assert found.same_top[0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 12), st.floats(1e-4, 3), st.integers(2, 3000))
def test_it_is_what_float64_says(seed: int, scale: float, noise: float, vocabulary: int) -> None:
    rng = np.random.default_rng(seed)
    reference = (rng.normal(0, scale, (7, vocabulary)) + rng.normal(0, 20, (7, 1))).astype(np.float32)
    other = (reference + rng.normal(0, noise, reference.shape) + rng.normal(0, 5, (7, 1))).astype(np.float32)
    assert compare(reference, other).divergence == pytest.approx(slow(reference, other), rel=1e-3, abs=1e-6)


def test_equal_logits_have_no_divergence() -> None:
    logits = np.random.default_rng(0).normal(0, 4, (5, 40_000)).astype(np.float32)
    found = compare(logits, logits)
    assert (found.divergence == 0).all()
    assert found.surprise == pytest.approx(found.reference_surprise)


def test_a_probability_that_has_vanished_in_the_reference_still_counts() -> None:
    reference = np.zeros((2, 50), np.float32)
    reference[:, 1] = -150
    other = reference.copy()
    other[0, 1] = 200
    found = compare(reference, other)
    assert found.divergence == pytest.approx(slow(reference, other), rel=1e-6)
    assert found.divergence[0] > 190
    assert found.divergence[1] == 0


def test_what_is_no_number_stays_none() -> None:
    reference = np.zeros((1, 4), np.float32)
    with np.errstate(invalid="ignore"):
        assert np.isnan(compare(reference, np.full_like(reference, np.nan)).divergence[0])


def chunk(values: list[float]) -> list[Comparison]:
    kld = np.array(values)
    ones = np.ones(len(kld))
    return [Comparison(kld, kld < 1, ones + kld, ones)]


def test_figures_of_known_positions() -> None:
    chunks = [chunk([0.0] * 64 + [2.0] * 64), chunk([0.5] * 64 + [3.0] * 64)]
    found = divergence_of(Path("a"), Path("b"), 128, chunks)
    assert found.short
    assert found.long
    assert (found.overall.mean, found.short.mean, found.long.mean) == (1.375, 0.25, 2.5)
    assert (found.overall.tokens, found.short.tokens, found.long.tokens) == (256, 128, 128)
    assert (found.overall.median, found.overall.maximum, found.overall.top1) == (1.25, 3.0, 0.5)
    assert found.overall.perplexity_ratio == pytest.approx(np.exp(1.375))
    assert found.overall.low is None  # four blocks


def test_few_positions_tell_nothing_about_their_own_certainty() -> None:
    found = divergence_of(Path("a"), Path("b"), 512, [chunk([0.1] * 64 + [0.2] * 64)] * 3)
    assert (found.overall.low, found.overall.high, found.long) == (None, None, None)
    assert divergence_of(Path("a"), Path("b"), 512, [chunk([0.1] * 64 + [0.2] * 64)] * 4).overall.low is not None


def test_two_chunks_that_agree_by_chance_are_not_sure() -> None:
    """Eight blocks each, of which every one has another mean; the chunks have the same."""
    values = [value for value in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0) for _ in range(64)]
    found = divergence_of(Path("a"), Path("b"), 512, [chunk(values), chunk(values[::-1])]).overall
    assert found.low is not None
    assert found.high is not None
    expected = 1.96 * np.std(np.arange(1, 9)) / np.sqrt(16)
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.0481, 0.0432, 0.0538), "0.048 ± 0.005"),
        ((0.0481, 0.0431, 0.0545), "0.048 ± 0.006"),
        ((0.0123, 0.01225, 0.01235), "0.012 ± 0.001"),
        ((0.0123, 0.0, 0.06), "0.01 ± 0.03"),
        ((0.0123, None, None), "0.012"),
        ((2.3456, 1.9, 2.9), "2.3 ± 0.5"),
        ((3.04e-6, 2.8e-6, 3.2e-6), "0.0000030 ± 0.0000002"),
        ((0.0, 0.0, 0.0), "0.0"),
        ((14.2, 11.0, 17.0), "14 ± 3"),
        ((float("nan"), None, None), "nan"),
    ],
)
def test_a_mean_is_shown_as_precisely_as_it_is_known(
    values: tuple[float, float | None, float | None], text: str
) -> None:
    assert shown(*values) == text


def test_a_record_can_be_read_back() -> None:
    text = MeasuredText("mine.txt", "ab" * 32, 7, 1024)
    found = divergence_of(Path("a"), Path("b.gguf"), 256, [chunk([0.25] * 256)] * 4, text)
    again = Divergence.from_json(json.loads(json.dumps(found.to_json())), Path("a"))
    assert again == replace(found, **{name: getattr(again, name) for name in ("overall", "short", "long")})
    assert asdict(again.overall) == pytest.approx(asdict(found.overall), rel=1e-5)
    short = divergence_of(Path("a"), Path("b.gguf"), 256, [chunk([0.25] * 9)])
    assert Divergence.from_json(short.to_json(), Path("a")).overall.low is None
    assert Divergence.from_json(short.to_json(), Path("a")).long is None


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        chunks = [chunk(list(rng.exponential(rng.gamma(5, 0.02), 50))) for _ in range(20)]
        found = divergence_of(Path("a"), Path("b"), 512, chunks).overall
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.1 <= found.high
    assert hits >= 50


def test_chunks_begin_where_texts_do(tiny_model: Path) -> None:
    with open_vocabulary(tiny_model) as tokenizer:
        first, second = tokenizer.encode("x" * 50), tokenizer.encode("y" * 50)
        assert cut_chunks(tokenizer, ["x" * 50, "y" * 50] * 3, 64, 150) == ([first + second[:14]] * 3, 6)
        assert cut_chunks(tokenizer, ["x" * 50, "y" * 50], 512, 150) == ([first + second], 2)
        assert cut_chunks(tokenizer, ["x"], 512, 150) == ([], 0)


@pytest.fixture(scope="module")
def tiny_f32(tiny_model: Path) -> Path:
    return tiny_model  # its name says Q8_0, its tensors are F32


def test_more_bits_lose_less(tiny_f32: Path, tmp_path: Path) -> None:
    kinds = gguf.GGMLQuantizationType
    paths = [
        copy_gguf(tiny_f32, tmp_path / f"tiny-{kind.name}.gguf", quantize=kind)
        for kind in (kinds.F16, kinds.Q8_0, kinds.Q5_0, kinds.Q4_0)
    ]
    texts = [f"{number} the end. Hello" * 30 for number in range(8)]
    found = measure_divergence(tiny_f32, [tiny_f32, *paths], texts, context_tokens=128, num_tokens=512, threads=1)
    means = [one.overall.mean for one in found]
    assert means[0] == 0
    assert found[0].overall.top1 == 1
    assert means == sorted(means)
    assert means[2] * 4 < means[4] < 0.1
    assert found[0].text
    assert (found[0].text.name, found[0].text.tokens) == (None, 512)
    assert 2 <= found[0].text.texts <= 8
    assert [one.candidate for one in found] == [tiny_f32, *paths]


def test_groups_give_the_same_as_all_at_once(tiny_f32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [copy_gguf(tiny_f32, tmp_path / "q8.gguf", quantize=gguf.GGMLQuantizationType.Q8_0)] * 3
    texts = ["Hello. the end" * 60]
    together = measure_divergence(tiny_f32, paths, texts, context_tokens=128, num_tokens=128, threads=1)
    monkeypatch.setattr(divergence_module, "MEMORY_BYTES", 0)
    assert len(divergence_module._groups(paths, 270)) == 3
    apart = measure_divergence(tiny_f32, paths, texts, context_tokens=128, num_tokens=128, threads=1)
    assert [one.overall.mean for one in apart] == pytest.approx([one.overall.mean for one in together], rel=0.2)


def test_another_vocabulary_is_refused(tiny_f32: Path, demo_model: Path) -> None:
    with pytest.raises(ProofError, match="49152 tokens and its reference"):
        measure_divergence(tiny_f32, [demo_model], ["Hello. the end" * 9], num_tokens=64)


def test_no_text_is_refused(tiny_f32: Path) -> None:
    with pytest.raises(ProofError, match="less than two tokens"):
        measure_divergence(tiny_f32, [tiny_f32], [""])


def test_the_held_out_text_is_conversations() -> None:
    chats = read_conversations()
    assert len(chats) > 40
    for chat in chats:
        roles = [message["role"] for message in chat]
        assert roles[-1] == "assistant"
        assert set(roles) <= {"system", "user", "assistant"}
        assert all(message["content"] for message in chat)
    text = "".join(message["content"] for chat in chats for message in chat)
    assert 40_000 < len(text.encode()) < 64_000
    assert all(word in text for word in ("zwanzig", "pommes", "ます", "空气", "облака", "아침", "def ", "SELECT", "≈"))


def test_the_text_can_be_told_from_others(tmp_path: Path, tiny_f32: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Hello. the end" * 40)
    source = text_source(path)
    assert source == ("mine.txt", sha256(path.read_bytes()).hexdigest())
    assert "tapster" in text_source().name
    with pytest.raises(ConfigError, match="cannot read"):
        text_source(tmp_path / "none.txt")
    texts = [path.read_text()]
    [found] = measure_divergence(tiny_f32, [tiny_f32], texts, num_tokens=64, threads=1, text=source)
    assert found.to_json()["text"] == {"name": source.name, "sha256": source.sha256, "texts": 1, "tokens": 64}


def test_it_is_written_by_the_models_template(demo_model: Path) -> None:
    texts = chat_texts(load_profile(demo_model), read_conversations())
    assert texts[0].startswith("<|im_start|>system\nYou are a patient teacher")
    assert all(text.rstrip().endswith("<|im_end|>") for text in texts)


def test_a_plain_file_becomes_questions_and_answers(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("A title\nAnd its text.\n\n" + "word " * 1000)
    chats = read_conversations(path)
    assert chats[0] == [{"role": "user", "content": "A title"}, {"role": "assistant", "content": "And its text."}]
    assert sum(len(message["content"]) for chat in chats for message in chat) > 4900
    path.write_text(" \n")
    with pytest.raises(ConfigError, match="has no text"):
        read_conversations(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read_conversations(tmp_path / "none.txt")
