"""The engine on real weights: what it computes, what it shares, and what it does when things go wrong."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reference import Reference, log_softmax64

from tapster.runtime.engines.base import Token
from tapster.runtime.engines.llamacpp.config import LlamaCppConfig
from tapster.runtime.engines.llamacpp.engine import LlamaCppEngine
from tapster.runtime.engines.local.generation import LocalGeneration
from tapster.runtime.errors import ConfigError, ContextOverflow, EngineError, ModelError, Overloaded, RequestError
from tapster.runtime.gbnf import checked_grammar
from tapster.runtime.profile import load_profile
from tapster.runtime.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=24)
TEXT = "The river rose in the night, and by morning the lower fields were a grey lake with fence posts in it."

MOST_NATS, MEAN_NATS = 0.3, 0.04
"""How far batch size alone moves a log-probability of the demo model, with a margin of two.

llama.cpp's attention takes another path for batches of many tokens, with other sums in half precision. Measured on
the bare API over 120 tokens, batches of 64 against one token at a time: at most 0.165 nats, on average 0.020.
Batches of up to nine tokens give the very same bits.
"""


@pytest.fixture(scope="module")
def reference(demo_model: Path) -> Iterator[Reference]:
    reference = Reference(demo_model)
    yield reference
    reference.close()


@pytest.fixture(scope="module")
def loaded(demo_model: Path) -> Iterator[LlamaCppEngine]:
    engine = LlamaCppEngine(load_profile(demo_model), LlamaCppConfig(context=1024, cells=4096, max_parallel=9))
    yield engine
    engine.close()


@pytest.fixture
async def engine(loaded: LlamaCppEngine) -> AsyncIterator[LlamaCppEngine]:
    yield loaded
    await idle(loaded)
    assert loaded.cache.private == 0, "cells of finished sequences are all accounted for"


@pytest.fixture
async def tiny(tiny_model: Path) -> AsyncIterator[LlamaCppEngine]:
    config = LlamaCppConfig(context=256, cells=256, max_parallel=4, max_waiting=4)
    engine = LlamaCppEngine(load_profile(tiny_model), config)
    yield engine
    engine.close()


async def idle(engine: LlamaCppEngine) -> None:
    async with asyncio.timeout(30):
        while engine.stats()["running"] or engine.stats()["waiting"]:
            await asyncio.sleep(0.01)


async def run(engine: LlamaCppEngine, ids: list[int], params: SamplingParams = GREEDY) -> list[Token]:
    return [token async for token in engine.generate(ids, params)]


def ids_of(tokens: list[Token]) -> list[int]:
    return [token.id for token in tokens]


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    """Equal within what the kernels' rounding allows."""
    difference = np.abs(got - want)
    assert difference.max() < MOST_NATS
    assert difference.mean() < MEAN_NATS


async def test_greedy_equals_the_bare_api(engine: LlamaCppEngine, reference: Reference) -> None:
    ids = engine.tokenizer.encode(TEXT)
    tokens = await run(engine, ids)
    assert ids_of(tokens) == reference.greedy(ids, 24)


async def test_prompt_logprobs_equal_a_from_scratch_reference(engine: LlamaCppEngine, reference: Reference) -> None:
    ids = engine.tokenizer.encode(TEXT * 5)
    generation = engine.generate(ids, SamplingParams(max_tokens=0, prompt_logprobs=3))
    assert [token async for token in generation] == []
    scored = generation.prompt_logprobs
    assert scored is not None
    assert [token.id for token in scored] == ids
    assert scored[0].logprob is None
    expected = log_softmax64(reference.logits(ids))
    got = np.array([token.logprob for token in scored[1:]])
    want = expected[np.arange(len(ids) - 1), ids[1:]]
    assert_close(got, want)
    assert [choice.id for choice in scored[1].top or ()] == np.argsort(-expected[0])[:3].tolist()


async def test_logprobs_with_eight_neighbours_and_a_shared_prefix_equal_those_alone(
    engine: LlamaCppEngine, reference: Reference
) -> None:
    system = engine.tokenizer.encode(TEXT * 3)
    prompts = [system + engine.tokenizer.encode(f" Question {n}: {word}") for n, word in enumerate("abcdefghi")]
    params = SamplingParams(temperature=0, max_tokens=16, top_logprobs=0)
    together = await asyncio.gather(*(run(engine, prompt, params) for prompt in prompts))
    alone: list[float] = []
    for prompt, tokens in zip(prompts, together, strict=True):
        made = ids_of(tokens)
        rows = log_softmax64(reference.logits([*prompt, *made[:-1]])[len(prompt) - 1 :])
        alone += rows[np.arange(len(made)), made].tolist()
    assert_close(np.array([token.logprob for tokens in together for token in tokens]), np.array(alone))


async def test_a_shared_prefix_is_computed_once(engine: LlamaCppEngine) -> None:
    system = engine.tokenizer.encode("Computed once. " + TEXT * 6)
    prompts = [[*system, 1000 + n, 2000 + n] for n in range(8)]
    generations = [engine.generate(prompt, GREEDY) for prompt in prompts]
    await asyncio.gather(*(collect(generation) for generation in generations))
    cached = sorted(generation.cached_tokens for generation in generations)
    assert cached[0] < len(system)
    assert cached[1:] == [len(system)] * 7


async def test_the_next_turn_begins_where_the_last_ended(engine: LlamaCppEngine) -> None:
    ids = engine.tokenizer.encode("A second turn. " + TEXT)
    made = ids_of(await run(engine, ids))
    generation = engine.generate([*ids, *made, 11, 12], GREEDY)
    await collect(generation)
    assert generation.cached_tokens == len(ids) + len(made) - 1


async def test_copies_of_a_prompt_share_it_and_differ(engine: LlamaCppEngine) -> None:
    ids = engine.tokenizer.encode("Copies. " + TEXT)
    params = [SamplingParams(temperature=1.5, max_tokens=12, seed=seed) for seed in range(4)]
    generations = [engine.generate(ids, each) for each in params]
    answers = await asyncio.gather(*(collect(generation) for generation in generations))
    assert sum(generation.cached_tokens == len(ids) - 1 for generation in generations) >= 3
    assert len({tuple(ids_of(answer)) for answer in answers}) == 4
    again = [ids_of(await run(engine, ids, each)) for each in params]
    first = [ids_of(answer)[0] for answer in answers]
    assert [tokens[0] for tokens in again] == first


async def collect(generation: LocalGeneration) -> list[Token]:
    return [token async for token in generation]


async def test_sampling_filters_and_biases(engine: LlamaCppEngine) -> None:
    ids = engine.tokenizer.encode("One two three")
    best = (await run(engine, ids, SamplingParams(temperature=0, max_tokens=1)))[0].id
    hot = SamplingParams(temperature=5, max_tokens=1)
    for narrow in (replace(hot, top_k=1), replace(hot, top_p=0.0), replace(hot, min_p=1.0)):
        assert ids_of(await run(engine, ids, narrow)) == [best], narrow
    banned = await run(engine, ids, SamplingParams(temperature=0, max_tokens=1, logit_bias={best: -100.0}))
    assert banned[0].id != best
    repeated = await run(engine, ids, SamplingParams(temperature=0, max_tokens=20, logit_bias={77: 100.0}))
    assert set(ids_of(repeated)) == {77}
    varied = await run(
        engine, ids, SamplingParams(temperature=0, max_tokens=20, frequency_penalty=2.0, repeat_penalty=10.0)
    )
    assert len(set(ids_of(varied))) > 15


async def test_a_grammar_is_obeyed(engine: LlamaCppEngine) -> None:
    ids = engine.tokenizer.encode("Is water wet? Answer:")
    params = SamplingParams(temperature=2, max_tokens=20, grammar='root ::= "yes" | "no" | "it de" "pends"')
    for _ in range(5):
        text = b"".join(
            engine.tokenizer.piece(token.id) for token in await run(engine, ids, params) if not token.is_eog
        )
        assert text in (b"yes", b"no", b"it depends")


async def test_end_of_generation_can_be_forbidden(engine: LlamaCppEngine) -> None:
    ids = engine.tokenizer.encode("<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n")
    free = await run(engine, ids, SamplingParams(temperature=0, max_tokens=200))
    assert free[-1].is_eog
    forced = await run(engine, ids, SamplingParams(temperature=0, max_tokens=len(free) + 5, ignore_eog=True))
    assert len(forced) == len(free) + 5
    assert not any(token.is_eog for token in forced)


async def test_embeddings_have_unit_length_and_meaning(engine: LlamaCppEngine) -> None:
    texts = ["The cat sat on the mat.", "A cat is sitting on a rug.", "Quarterly revenue rose by nine percent."]
    vectors = await asyncio.gather(*(engine.embed(engine.tokenizer.encode(text)) for text in texts))
    cat, other_cat, revenue = map(np.array, vectors)
    assert [round(float(v @ v), 5) for v in (cat, other_cat, revenue)] == [1, 1, 1]
    assert cat @ other_cat > cat @ revenue
    long = await engine.embed(engine.tokenizer.encode(TEXT * 8))
    assert len(long) == len(vectors[0])


async def test_a_cancelled_sequence_is_freed(engine: LlamaCppEngine) -> None:
    ids = engine.tokenizer.encode("Cancelled. " + TEXT)
    generation = engine.generate(ids, SamplingParams(max_tokens=500, ignore_eog=True))
    await anext(generation)
    generation.cancel()
    assert [token async for token in generation] == []
    assert generation.finish_reason == "cancelled"
    await idle(engine)


@pytest.mark.parametrize("temperature", [0, 100])
async def test_more_than_the_cache_holds_is_preempted_and_goes_on(
    tiny: LlamaCppEngine, tiny_model: Path, temperature: float
) -> None:
    """Every token still has the log-probability that a from-scratch reference gives it, and samplers keep their state.

    The tiny model is in single precision: batches of another shape move its log-probabilities by 0.01 nats at most.
    That flips a draw now and then, so most sequences, not all, must be the same as alone.
    """
    reference = Reference(tiny_model)
    prompts = [[10 + n] * 40 for n in range(4)]
    params = SamplingParams(temperature=temperature, seed=7, max_tokens=100, ignore_eog=True, top_logprobs=0)
    alone = [ids_of(await run(tiny, prompt, params)) for prompt in prompts]
    together = await asyncio.gather(*(run(tiny, prompt, params) for prompt in prompts))
    assert tiny.stats()["preempted"] > 0
    assert tiny.stats()["cells_used"] <= 256
    for prompt, tokens in zip(prompts, together, strict=True):
        made = ids_of(tokens)
        rows = log_softmax64(reference.logits([*prompt, *made[:-1]])[len(prompt) - 1 :])
        want = rows[np.arange(100), made]
        assert np.abs(np.array([token.logprob for token in tokens]) - want).max() < 0.05
    assert sum(ids_of(tokens) == same for tokens, same in zip(together, alone, strict=True)) >= 2
    reference.close()


async def test_cancel_at_every_stage(tiny: LlamaCppEngine) -> None:
    params = SamplingParams(max_tokens=100, ignore_eog=True)
    generations = [tiny.generate([20 + n] * 100, params) for n in range(8)]
    generations[7].cancel()
    await anext(generations[0])
    for generation in generations[1:7]:
        generation.cancel()
    assert len(await collect(generations[0])) == 99
    await idle(tiny)
    assert tiny.cache.private == 0


async def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(tiny: LlamaCppEngine) -> None:
    with pytest.raises(ContextOverflow, match=r"300 tokens.*holds 256"):
        tiny.generate([5] * 300, GREEDY)
    with pytest.raises(ContextOverflow, match=r"256 tokens.*holds 256"):
        tiny.generate([5] * 256, GREEDY)
    tokens = await run(tiny, [5] * 255, SamplingParams(ignore_eog=True))
    assert len(tokens) == 1


async def test_a_full_queue_is_refused_at_once(tiny: LlamaCppEngine) -> None:
    generations = [tiny.generate([5, 6, 7], SamplingParams(max_tokens=50, ignore_eog=True)) for _ in range(8)]
    with pytest.raises(Overloaded, match="--max-waiting 4"):
        tiny.generate([5], GREEDY)
    await asyncio.gather(*map(collect, generations))
    await idle(tiny)
    assert await run(tiny, [5], SamplingParams(max_tokens=1))


@pytest.mark.parametrize(
    ("ids", "params", "param"),
    [
        ([], GREEDY, "prompt"),
        ([99999], GREEDY, "prompt"),
        ([-1], GREEDY, "prompt"),
        ([5], SamplingParams(grammar="root ::= ("), "grammar"),
        ([5], SamplingParams(grammar='start ::= "x"'), "grammar"),
        ([5], SamplingParams(logit_bias={99999: 1.0}), "logit_bias"),
    ],
)
async def test_bad_requests_name_the_parameter(
    tiny: LlamaCppEngine, ids: list[int], params: SamplingParams, param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        tiny.generate(ids, params)
    assert caught.value.param == param
    assert tiny.stats()["waiting"] == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_failing_engine_tells_everyone(tiny: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[EngineError] = []
    tiny.on_failure(told.append)
    generations = [tiny.generate([5 + n] * 9, SamplingParams(max_tokens=200, ignore_eog=True)) for n in range(6)]
    await anext(generations[0])
    assert tiny._context is not None
    monkeypatch.setattr(tiny._context, "decode", lambda batch: -3)
    results = await asyncio.gather(*map(collect, generations), return_exceptions=True)
    assert all(isinstance(result, EngineError) for result in results)
    assert len(told) == 1
    with pytest.raises(EngineError, match="status -3"):
        tiny.generate([5], GREEDY)


async def test_an_idle_engine_looks_at_the_load(tiny: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()
    monkeypatch.setattr(tiny.tuner, "look_every_s", 0.01)
    monkeypatch.setattr(tiny.tuner, "rest", looked.set)
    await run(tiny, [5])
    assert await asyncio.to_thread(looked.wait, 30)


async def test_close_ends_what_runs(tiny_model: Path) -> None:
    engine = LlamaCppEngine(load_profile(tiny_model))
    generation = engine.generate([5], SamplingParams(max_tokens=400, ignore_eog=True))
    await anext(generation)
    engine.close()
    with pytest.raises(EngineError) as caught:
        await collect(generation)
    assert caught.value.is_shutdown


def test_a_broken_file_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match=r"broken\.gguf"):
        LlamaCppEngine(replace(load_profile(tiny_model), path=path))


@pytest.mark.parametrize("setting", [{"context": 1}, {"threads": 0}, {"max_parallel": 65}, {"batch_tokens": 8}])
def test_settings_are_checked(setting: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting)).replace("_", "-")):
        LlamaCppConfig(**setting)


async def test_an_unused_prefix_is_parked_and_comes_back(engine: LlamaCppEngine, reference: Reference) -> None:
    ids = engine.tokenizer.encode("Parked. " + TEXT * 2)
    made = ids_of(await run(engine, ids))
    other = engine.tokenizer.encode("Something else entirely. " + TEXT)
    await run(engine, other)
    assert engine.cache.num_parked > 0
    generation = engine.generate([*ids, *made[:-1]], SamplingParams(temperature=0, max_tokens=1))
    assert ids_of(await collect(generation)) == made[-1:]
    assert generation.cached_tokens >= len(ids) + len(made) - 2


@pytest.mark.parametrize("grammar", ["root ::= " + "(" * 20000, 'root ::= "a"{1,100000}'])
def test_a_grammar_that_would_hang_or_crash_the_parser_is_refused(grammar: str) -> None:
    with pytest.raises(RequestError, match="grammar"):
        checked_grammar(grammar)


async def test_a_huge_penalty_window_takes_no_more_memory_than_the_context(tiny: LlamaCppEngine) -> None:
    params = SamplingParams(max_tokens=2, repeat_penalty=1.1, penalty_last_n=2**31 - 1)
    assert await run(tiny, [5, 6], params)


@pytest.mark.parametrize("grammar", ['root ::= "Hello"', "root ::= [^\\x00-\\U0010FFFF]"])
async def test_a_grammar_that_allows_nothing_more_ends_the_answer(tiny: LlamaCppEngine, grammar: str) -> None:
    """Where llama.cpp itself would end the process: no token is allowed, and end of generation is forbidden."""
    generation = tiny.generate([5], SamplingParams(max_tokens=9, grammar=grammar, ignore_eog=True))
    made = b"".join([tiny.tokenizer.piece(token.id) async for token in generation])
    assert made == b"Hello" or "Hello" not in grammar
    assert generation.finish_reason in ("eog", "length")
    assert tiny.failed is None


async def test_a_closed_engine_refuses_instead_of_crashing(tiny_model: Path) -> None:
    engine = LlamaCppEngine(load_profile(tiny_model))
    engine.close()
    with pytest.raises(EngineError, match="stopped"):
        engine.tokenizer.encode("Hello")
    with pytest.raises(EngineError, match="stopped"):
        await engine.embed([5])


def test_an_engine_outlives_the_event_loop_of_a_cancelled_request(tiny_model: Path) -> None:
    engine = LlamaCppEngine(load_profile(tiny_model))

    async def begin_and_leave() -> None:
        await anext(engine.generate([5], SamplingParams(max_tokens=400, ignore_eog=True)))

    async def finish() -> int:
        return len(await run(engine, [6], SamplingParams(max_tokens=5, ignore_eog=True)))

    asyncio.run(begin_and_leave())
    assert asyncio.run(finish()) == 5
    engine.close()


def test_a_cache_larger_than_the_memory_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="lower --cells or --context"):
        LlamaCppEngine(load_profile(tiny_model), LlamaCppConfig(cells=2**31 - 1))
    with pytest.raises(ConfigError, match="--cells 64 holds less than one context"):
        LlamaCppEngine(load_profile(tiny_model), LlamaCppConfig(cells=64))
