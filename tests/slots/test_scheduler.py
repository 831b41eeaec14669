"""Sequences over slots: the tokens of one at a time, whatever runs beside, before or in their slot."""

import random

import numpy as np
import pytest
from driven_scheduler import Driven
from toy_models import VOCAB, ToyAttention, ToyRecurrent, answer

from tapster.runtime.engines.local.logprobs import log_softmax
from tapster.runtime.engines.slots.logits import SlotLogits
from tapster.runtime.engines.slots.model import OutOfMemory

MODELS = [ToyAttention, ToyRecurrent]


def ids(seed: int, count: int) -> list[int]:
    return random.Random(seed).choices(range(VOCAB), k=count)


@pytest.mark.parametrize("model", MODELS)
def test_one_sequence(model: type) -> None:
    driven = Driven(model(3))
    assert driven.run(ids(0, 30), 20) == answer(model, ids(0, 30), 20)
    assert set(driven.finished.values()) == {"length"}


@pytest.mark.parametrize("model", MODELS)
def test_a_prompt_of_one_token_in_a_used_slot(model: type) -> None:
    driven = Driven(model(1), parallel=1)
    driven.run([5, 6, 7], 4)
    assert driven.run([9], 6) == answer(model, [9], 6)


@pytest.mark.parametrize("model", MODELS)
def test_sequences_progress_together(model: type) -> None:
    driven = Driven(model(8), parallel=8)
    seqs = [driven.add(ids(seed, 5 + 7 * seed), 60) for seed in range(8)]
    driven.finish()
    for seed, seq in enumerate(seqs):
        assert driven.ids(seq) == answer(model, ids(seed, 5 + 7 * seed), 60)
    if isinstance(driven.model, ToyAttention):
        assert max(driven.model.batches) == 8


@pytest.mark.parametrize("model", MODELS)
def test_random_arrivals_ends_and_cancels(model: type) -> None:
    rng = random.Random(3)
    stems = [ids(100 + i, 25) for i in range(3)]
    for trial in range(30):
        parallel = rng.randint(1, 5)
        driven = Driven(model(parallel + rng.randint(0, 3)), eog=[1, 2], parallel=parallel, batch=rng.choice([32, 64]))
        seqs = {}
        for _ in range(12):
            prompt = rng.choice(stems)[: rng.randint(1, 25)] + ids(rng.randrange(50), rng.randint(0, 60))
            count = rng.randint(1, 25)
            seqs[driven.add(prompt, count)] = answer(model, prompt, count, driven.eog)
            for _ in range(rng.randint(0, 6)):
                driven.step()
            if rng.random() < 0.3:
                seq = rng.choice(list(seqs))
                if seq not in driven.finished:
                    seq.cancelled_at = rng.randint(0, len(seq.tokens))
        driven.finish()
        for seq, expected in seqs.items():
            if driven.finished[seq] == "cancelled":
                assert driven.ids(seq) == expected[: len(driven.ids(seq))], trial
            else:
                assert driven.ids(seq) == expected, trial


def test_the_next_turn_of_a_chat_computes_only_what_is_new() -> None:
    for model in (ToyAttention(4), ToyRecurrent(4)):
        driven = Driven(model)
        turn = ids(1, 40)
        turn += driven.run(turn, 10)
        before = model.num_prompt_tokens
        seq = driven.add([*turn, *ids(2, 8)], 5)
        driven.finish()
        assert seq.cached_tokens == len(turn) - 1  # the last token was never computed
        assert model.num_prompt_tokens - before == 9
        assert driven.ids(seq) == answer(type(model), [*turn, *ids(2, 8)], 5)


@pytest.mark.parametrize("model", MODELS)
def test_equal_prompts_at_once_are_computed_once(model: type) -> None:
    driven = Driven(model(4))
    seqs = [driven.add(ids(1, 60), 6) for _ in range(4)]
    driven.finish()
    assert driven.model.num_prompt_tokens <= 60
    assert [seq.cached_tokens for seq in seqs] == [0, 59, 59, 59]
    assert all(driven.ids(seq) == answer(model, ids(1, 60), 6) for seq in seqs)


@pytest.mark.parametrize("model", MODELS)
def test_a_common_beginning_of_prompts_at_once_is_computed_once(model: type) -> None:
    driven = Driven(model(4))
    prompts = [[*ids(1, 50), i, *ids(20 + i, 9)] for i in range(4)]
    seqs = [driven.add(prompt, 6) for prompt in prompts]
    driven.finish()
    assert driven.model.num_prompt_tokens == 50 + 4 * 10
    assert all(driven.ids(seq) == answer(model, prompt, 6) for seq, prompt in zip(seqs, prompts, strict=True))


def test_a_running_prefix_is_copied_and_an_idle_one_taken_over() -> None:
    model = ToyAttention(4)
    driven = Driven(model)
    first = driven.add(ids(1, 40), 50)
    for _ in range(5):
        driven.step()
    beside = driven.add(ids(1, 40)[:30] + ids(9, 5), 3)
    driven.finish()
    assert beside.cached_tokens == 30
    assert model.num_copied == 30
    again = driven.add([*first.tokens, 3], 3)
    driven.finish()
    assert model.num_copied == 30  # nothing was copied: the slot itself went on
    assert again.cached_tokens == 89


def test_a_kept_prefix_survives_a_prompt_that_shares_only_its_beginning() -> None:
    model = ToyAttention(4)
    driven = Driven(model)
    long, other = ids(1, 120), ids(1, 120)[:10] + ids(5, 20)
    driven.run(long, 2)
    driven.run(other, 2)
    seq = driven.add([*long, 7], 2)
    driven.finish()
    assert seq.cached_tokens == 120


def test_the_longest_unused_slot_goes_first() -> None:
    driven = Driven(ToyAttention(2), parallel=1)
    driven.run(ids(1, 40), 1)
    driven.run(ids(2, 40), 1)
    driven.run([*ids(1, 40), 4], 1)
    driven.run(ids(3, 40), 1)
    seqs = [driven.add([*ids(seed, 40), 6], 1) for seed in (1,)]
    driven.finish()
    assert seqs[0].cached_tokens == 40
    assert driven.scheduler.table.num_idle == 2


@pytest.mark.parametrize(("model", "kept"), [(ToyAttention, 22), (ToyRecurrent, 0)])
def test_a_cancelled_sequence_keeps_exactly_what_is_asked(model: type, kept: int) -> None:
    driven = Driven(model(3))
    seq = driven.add(ids(1, 20), 100)
    while len(driven.tokens[seq]) < 8:
        driven.step()
    seq.cancelled_at = 22
    driven.step()
    assert driven.finished[seq] == "cancelled"
    assert not driven.scheduler.running
    assert driven.scheduler.table.num_used == kept
    again = driven.add([*seq.tokens, 3], 4)
    driven.finish()
    assert again.cached_tokens == kept
    assert driven.ids(again) == answer(model, [*seq.tokens, 3], 4)


def test_a_waiting_sequence_is_cancelled_at_once() -> None:
    driven = Driven(ToyAttention(1), parallel=1)
    driven.add(ids(1, 10), 50)
    waiting = driven.add(ids(2, 10), 50)
    driven.step()
    waiting.cancelled_at = 10
    driven.step()
    assert driven.finished[waiting] == "cancelled"
    assert len(driven.scheduler.running) == 1


def test_a_long_prompt_does_not_stall_a_running_stream() -> None:
    driven = Driven(ToyAttention(2), batch=200)
    stream = driven.add(ids(1, 4), 200)
    for _ in range(20):
        driven.step()
    driven.add(ids(2, 200), 2)
    before, steps = len(driven.tokens[stream]), 0
    while len(driven.scheduler.running) + len(driven.scheduler.waiting) == 2:
        driven.step()
        steps += 1
    assert len(driven.tokens[stream]) - before == steps
    assert steps > 3


@pytest.mark.parametrize("model", MODELS)
def test_scores_are_those_of_a_plain_forward(model: type) -> None:
    driven = Driven(model(2), batch=200)
    prompt = ids(1, 150)
    driven.run(prompt, 1)  # a cached prefix must not shorten the scores
    seq = driven.add(prompt, 0, prompt_logprobs=2)
    driven.finish()
    expected = log_softmax(model(1).prefill(0, prompt, 0, all_rows=True))
    assert seq.prompt_logprobs[0].logprob is None
    scores = [token.logprob or 0.0 for token in seq.prompt_logprobs]
    assert seq.cached_tokens == 0
    np.testing.assert_allclose(scores[1:], [expected[i, prompt[i + 1]] for i in range(149)], rtol=1e-5)
    if isinstance(driven.model, ToyAttention):
        assert driven.model.most_rows == 64
    assert driven.finished[seq] == "length"
    assert not driven.tokens[seq]


def test_end_of_generation_is_the_last_token() -> None:
    expected = answer(ToyAttention, ids(1, 10), 30)
    eog = expected[5]
    driven = Driven(ToyAttention(2), eog=[eog])
    seq = driven.add(ids(1, 10), 30)
    driven.finish()
    assert driven.ids(seq) == expected[: expected.index(eog) + 1]
    assert driven.tokens[seq][-1].is_eog
    assert driven.finished[seq] == "eog"


def test_a_sequence_without_memory_fails_alone() -> None:
    class Small(ToyAttention):
        def prefill(self, slot, ids, start, *, all_rows=False):
            if start + len(ids) > 100:
                raise OutOfMemory("no memory for 101 tokens")
            return super().prefill(slot, ids, start, all_rows=all_rows)

    driven = Driven(Small(3))
    good, bad = driven.add(ids(1, 20), 15), driven.add(ids(2, 150), 5)
    driven.finish()
    assert driven.failures == {bad: "no memory for 101 tokens"}
    assert driven.ids(good) == answer(ToyAttention, ids(1, 20), 15)


def test_a_copy_that_finds_no_memory_leaves_nothing_behind_that_looks_whole() -> None:
    class Failing(ToyAttention):
        def copy(self, source, target, num_tokens):
            self.cells[target] = np.nan
            raise OutOfMemory("no memory for a copy")

    driven = Driven(Failing(2), parallel=2)
    before, long = ids(6, 20), ids(7, 120)
    driven.run(before, 4)
    driven.run(long, 4)
    bad = driven.add([*long[:60], *ids(8, 30)], 4)
    driven.finish()
    assert driven.failures == {bad: "no memory for a copy"}
    assert driven.run([*before, 3], 5) == answer(ToyAttention, [*before, 3], 5)


def test_ids_that_only_the_model_has_are_never_chosen() -> None:
    class Padded(ToyAttention):
        def _token(self, slot, token, position):
            row = super()._token(slot, token, position)
            row[-8:] = 1000
            return row

    driven = Driven(Padded(3), vocab=VOCAB - 8)
    seqs = [driven.add([1 + seed, 2], 6, top_logprobs=3, prompt_logprobs=2) for seed in range(2)]
    driven.finish()
    for seq in seqs:
        shown = [*driven.tokens[seq], *seq.prompt_logprobs]
        assert all(one.id < VOCAB - 8 for token in shown for one in (token, *(token.top or ())))


def test_logits_of_a_given_text_in_pieces() -> None:
    model = ToyAttention(1)
    logits, text = SlotLogits(model), ids(4, 30)
    whole = logits.logits(text, 0).copy()
    pieces = [logits.logits(text[start : start + 7], start).copy() for start in range(0, 30, 7)]
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=1e-6)
    assert whole.shape == (30, logits.vocabulary)
    logits.close()
    assert model.is_closed
