"""What every engine over slots has to do, whatever computes: a test class for each of them begins with this one.

A subclass's module has the fixtures ``engine`` (context 200, 16 at once) and ``reference``.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pytest

from tapster.runtime.engines.local.engine import LocalEngine
from tapster.runtime.engines.local.generation import LocalGeneration
from tapster.runtime.engines.local.logprobs import log_softmax
from tapster.runtime.errors import ContextOverflow, EngineError, RequestError
from tapster.runtime.sampling import SamplingParams


class Reference(Protocol):
    """The same model computed in the plainest way."""

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits of a whole text at once, (tokens, vocab)."""
        ...

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """The most likely continuation, without stopping."""
        ...


def prompt(seed: int, length: int) -> list[int]:
    return np.random.default_rng(seed).integers(3, 250, length).tolist()


def start(engine: LocalEngine, ids: list[int], count: int, **options: Any) -> LocalGeneration:
    settings = {"temperature": 0, "ignore_eog": True, **options}
    return engine.generate(ids, SamplingParams(max_tokens=count, **settings))


async def tokens(generation: LocalGeneration) -> list[int]:
    return [token.id async for token in generation]


class EngineChecks:
    """The checks."""

    async def test_greedy_is_the_reference(self, engine: LocalEngine, reference: Reference) -> None:
        for seed, length in ((1, 1), (2, 9), (3, 120)):
            ids = prompt(seed, length)
            assert await tokens(start(engine, ids, 20)) == reference.greedy(ids, 20)

    async def test_sixteen_at_once(self, engine: LocalEngine, reference: Reference) -> None:
        prompts = [prompt(seed, 3 + 9 * seed) for seed in range(16)]
        running = [start(engine, ids, 4 + seed) for seed, ids in enumerate(prompts)]
        answers = await asyncio.gather(*map(tokens, running))
        for seed, (ids, answer) in enumerate(zip(prompts, answers, strict=True)):
            assert answer == reference.greedy(ids, 4 + seed)
        assert engine.stats()["running"] == engine.stats()["waiting"] == 0

    async def test_the_next_turn_takes_the_cached_prefix(self, engine: LocalEngine, reference: Reference) -> None:
        ids = prompt(1, 60)
        ids += await tokens(start(engine, ids, 12))
        ids += prompt(2, 10)
        generation = start(engine, ids, 12)
        assert await tokens(generation) == reference.greedy(ids, 12)
        assert generation.cached_tokens == 71

    async def test_equal_prompts_share_their_cells(self, engine: LocalEngine, reference: Reference) -> None:
        ids = prompt(5, 80)
        running = [start(engine, ids, 8) for _ in range(4)]
        assert await asyncio.gather(*map(tokens, running)) == [reference.greedy(ids, 8)] * 4
        assert sorted(generation.cached_tokens for generation in running) == [0, 79, 79, 79]

    async def test_scores_are_those_of_a_plain_forward(self, engine: LocalEngine, reference: Reference) -> None:
        ids = prompt(6, 150)
        generation = start(engine, ids, 0, prompt_logprobs=3)
        assert await tokens(generation) == []
        expected = log_softmax(reference.logits(ids))
        scored = generation.prompt_logprobs
        assert scored is not None
        assert scored[0].logprob is None
        assert len(scored) == 150
        found = [token.logprob or 0.0 for token in scored[1:]]
        np.testing.assert_allclose(found, [expected[i, ids[i + 1]] for i in range(149)], atol=2e-3)
        for position in (1, 149):
            best = expected[position - 1].argsort()[::-1][:3].tolist()
            top = scored[position].top
            assert top is not None
            assert [entry.id for entry in top] == best

    async def test_logprobs_of_the_answer(self, engine: LocalEngine, reference: Reference) -> None:
        ids = prompt(7, 20)
        answer = [token async for token in start(engine, ids, 6, top_logprobs=2)]
        expected = log_softmax(reference.logits([*ids, *(token.id for token in answer)]))
        found = [token.logprob or 0.0 for token in answer]
        np.testing.assert_allclose(found, [expected[19 + i].max() for i in range(6)], atol=2e-3)

    async def test_a_seed_repeats_its_answer(self, engine: LocalEngine) -> None:
        drawn = [await tokens(start(engine, prompt(8, 30), 20, temperature=1.0, seed=seed)) for seed in (4, 4, 5)]
        assert drawn[0] == drawn[1] != drawn[2]

    async def test_a_prompt_that_does_not_fit(self, engine: LocalEngine, reference: Reference) -> None:
        with pytest.raises(ContextOverflow):
            start(engine, prompt(1, 200), 1)
        ids = prompt(1, 190)
        generation = start(engine, ids, 50)
        assert await tokens(generation) == reference.greedy(ids, 10)
        assert generation.finish_reason == "length"

    async def test_a_cancelled_sequence_keeps_what_is_asked(self, engine: LocalEngine, reference: Reference) -> None:
        ids, got = prompt(9, 40), []
        generation = start(engine, ids, 100)
        async for token in generation:
            got.append(token.id)
            if len(got) == 10:
                generation.cancel(4)
        assert generation.finish_reason == "cancelled"
        assert len(got) == 10
        again = start(engine, [*ids, *got, 5], 6)
        assert await tokens(again) == reference.greedy([*ids, *got, 5], 6)
        assert again.cached_tokens == 44

    async def test_it_ends_at_an_end_of_generation(self, engine: LocalEngine, reference: Reference) -> None:
        ids = prompt(3, 30)
        eog = min(engine.tokenizer.eog_ids)
        generation = start(engine, ids, 20, ignore_eog=False, logit_bias={eog: 100.0})
        answer = [token async for token in generation]
        assert [token.id for token in answer] == [eog]
        assert answer[0].is_eog
        assert generation.finish_reason == "eog"

    async def test_what_it_cannot_do_is_said(self, engine: LocalEngine) -> None:
        with pytest.raises(RequestError, match="grammar"):
            start(engine, [5, 6], 4, grammar='root ::= "a"')
        with pytest.raises(RequestError, match="embeddings"):
            await engine.embed([5, 6])

    async def test_closed_while_it_runs(self, engine: LocalEngine) -> None:
        running = [start(engine, prompt(seed, 20), 150) for seed in range(4)]
        async for _ in running[0]:
            break
        engine.close()
        for generation in running:
            with pytest.raises(EngineError):
                await tokens(generation)
        with pytest.raises(EngineError, match="stopped"):
            start(engine, [5, 6], 4)
        engine.close()
