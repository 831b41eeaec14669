"""The engine on a recurrent model: its state cannot be cut at a token, so nothing is shared."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from reference import Reference
from tiny_gguf import write_tiny_mamba_gguf

from tapster.runtime.engines.llamacpp.config import LlamaCppConfig
from tapster.runtime.engines.llamacpp.engine import LlamaCppEngine
from tapster.runtime.engines.local.generation import LocalGeneration
from tapster.runtime.profile import load_profile
from tapster.runtime.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=40, ignore_eog=True)
PROMPT = list(range(40, 100))
OTHER = list(range(150, 185))


@pytest.fixture(scope="module")
def mamba_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_mamba_gguf(tmp_path_factory.mktemp("mamba") / "mamba.gguf")


@pytest.fixture
async def mamba(mamba_model: Path) -> AsyncIterator[LlamaCppEngine]:
    engine = LlamaCppEngine(load_profile(mamba_model), LlamaCppConfig(context=256, cells=256, max_parallel=4))
    yield engine
    async with asyncio.timeout(30):
        while engine.stats()["running"] or engine.stats()["waiting"]:
            await asyncio.sleep(0.01)
    assert engine.cache.used == 0, "nothing is kept of finished sequences"
    assert engine.failed is None
    engine.close()


async def collect(generation: LocalGeneration) -> list[int]:
    return [token.id async for token in generation]


async def run(engine: LlamaCppEngine, ids: list[int], params: SamplingParams = GREEDY) -> list[int]:
    return await collect(engine.generate(ids, params))


async def test_greedy_equals_the_bare_api(mamba: LlamaCppEngine, mamba_model: Path) -> None:
    reference = Reference(mamba_model)
    made = await run(mamba, PROMPT)
    assert len(set(made)) > 5, "the model's answer depends on its state"
    rows = reference.logits([*PROMPT, *made[:-1]])[len(PROMPT) - 1 :]
    rows[:, sorted(mamba.tokenizer.eog_ids)] = -np.inf
    assert made == rows.argmax(axis=1).tolist()
    reference.close()


async def test_interleaved_requests_answer_as_each_alone(mamba: LlamaCppEngine) -> None:
    alone = [await run(mamba, PROMPT), await run(mamba, OTHER)]
    assert await asyncio.gather(run(mamba, PROMPT), run(mamba, OTHER)) == alone
    first = mamba.generate(PROMPT, GREEDY)
    begun = [(await anext(first)).id for _ in range(5)]
    assert await asyncio.gather(collect(first), run(mamba, OTHER)) == [alone[0][len(begun) :], alone[1]]


async def test_no_prefix_is_reused(mamba: LlamaCppEngine) -> None:
    made = await run(mamba, PROMPT)
    again = mamba.generate(PROMPT, GREEDY)
    assert await collect(again) == made
    longer = mamba.generate([*PROMPT, *made[:10]], SamplingParams(temperature=0, max_tokens=30, ignore_eog=True))
    assert await collect(longer) == made[10:]
    assert again.cached_tokens == longer.cached_tokens == 0


async def test_a_cancelled_sequence_leaves_nothing_behind(mamba: LlamaCppEngine) -> None:
    alone = await run(mamba, OTHER)
    for _ in range(8):
        generation = mamba.generate(PROMPT, SamplingParams(max_tokens=150, ignore_eog=True))
        await anext(generation)
        generation.cancel()
        assert await run(mamba, OTHER) == alone


async def test_preempted_sequences_go_on_as_if_alone(mamba: LlamaCppEngine) -> None:
    params = SamplingParams(temperature=0, max_tokens=120, ignore_eog=True)
    prompts = [[10 + n] * 40 for n in range(4)]
    alone = [await run(mamba, prompt, params) for prompt in prompts]
    together = await asyncio.gather(*(run(mamba, prompt, params) for prompt in prompts))
    assert mamba.stats()["preempted"] > 0
    assert together == alone


async def test_an_embedding_is_the_same_beside_a_stream(mamba: LlamaCppEngine) -> None:
    alone = await mamba.embed(PROMPT)
    beside, made = await asyncio.gather(mamba.embed(PROMPT), run(mamba, OTHER))
    assert beside == pytest.approx(alone, abs=1e-5)
    assert made == await run(mamba, OTHER)
