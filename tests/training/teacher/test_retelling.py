"""The same text in the tokens of two tokenizers."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizer import small_tokenizer
from teacher_models import other_tokenizer

from tapster.runtime.errors import ConfigError
from tapster.runtime.tokenizer.pieces import byte_level_piece
from tapster.training.teacher.retelling import Retelling
from tapster.training.teacher.vocabularies import same_tokens

CHAT = "<|im_start|>user\nWhat is 2 + 2? 👍<|im_end|>\n<|im_start|>assistant\nFour, naïve one.<|im_end|>\n"


@cache
def tokenizers() -> tuple[Any, Any]:
    return small_tokenizer(), other_tokenizer()


@cache
def retelling() -> Retelling:
    return Retelling(*tokenizers())


def ids_of(text: str) -> list[int]:
    return tokenizers()[0](text, add_special_tokens=False)["input_ids"]


def bytes_of(tokenizer: Any, ids: list[int]) -> bytes:
    return b"".join(byte_level_piece(tokenizer.convert_ids_to_tokens(token)) for token in ids)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60).filter(lambda text: text.isprintable() and "<|" not in text))
def test_stretches_are_the_same_text(text: str) -> None:
    ours, theirs = tokenizers()
    ids = ids_of(text)
    told = retelling().tell(ids)
    assert told.ids == theirs(text)["input_ids"]  # with its bos
    assert [at for one, _ in told.stretches for at in range(one.start, one.stop)] == list(range(len(ids)))
    for number, (one, other) in enumerate(told.stretches):
        begin = max(other.start, 1)  # behind the bos
        assert bytes_of(ours, ids[one]) == bytes_of(theirs, told.ids[begin : other.stop])
        assert other.start == (0 if number == 0 else told.stretches[number - 1][1].stop)
    borders = [len(bytes_of(ours, ids[: one.stop])) for one, _ in told.stretches]
    shared = {len(bytes_of(ours, ids[:n])) for n in range(1, len(ids) + 1)}
    shared &= {len(bytes_of(theirs, told.ids[1:n])) for n in range(2, len(told.ids) + 1)}
    assert set(borders) == shared  # none is overlooked


def test_control_tokens_are_told_by_what_they_are() -> None:
    ours, theirs = tokenizers()
    told = retelling().tell(ids_of(CHAT))
    # the student's <|im_end|> is its eos, so it is the teacher's; <|im_start|> is text to a teacher that has none
    expected = CHAT.replace("<|im_end|>", "</s>")
    assert told.ids == theirs(expected)["input_ids"]
    at = ids_of(CHAT).index(ours.eos_token_id)
    [stretch] = [pair for pair in told.stretches if pair[0].start <= at < pair[0].stop]
    assert stretch[0] == slice(at, at + 1)
    assert told.ids[stretch[1]] == [theirs.eos_token_id]
    alike = Retelling(ours, small_tokenizer())
    whole = alike.tell(ids_of(CHAT))
    assert whole.ids == ids_of(CHAT)
    assert whole.stretches == [(slice(n, n + 1), slice(n, n + 1)) for n in range(len(whole.ids))]


def test_a_text_that_is_cut_within_a_letter_is_told_up_to_there() -> None:
    ids = ids_of("Good 👍")
    cut = next(n for n in range(len(ids)) if bytes_of(tokenizers()[0], ids[:n])[-1:] == b"\xf0")
    told = retelling().tell(ids[:cut])
    assert told.ids == tokenizers()[1]("Good ")["input_ids"]
    assert told.stretches[-1][0].stop == cut - 1
    assert retelling().tell([]).stretches == []


def test_which_tokenizers_are_the_same() -> None:
    ours, theirs = tokenizers()
    assert same_tokens(ours, small_tokenizer())
    assert not same_tokens(ours, theirs)


def test_a_slow_tokenizer_is_refused() -> None:
    from transformers import ByT5Tokenizer

    with pytest.raises(ConfigError, match="save a fast one"):
        Retelling(tokenizers()[0], ByT5Tokenizer())
