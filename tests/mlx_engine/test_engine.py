"""The MLX engine: the checks of every local engine, and what is MLX's own."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from engine_checks import EngineChecks, prompt, start, tokens
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model
from tiny_checkpoints import TinyCheckpoint

from tapster.converters.folder import FolderReport
from tapster.runtime.engines.mlx.config import MlxConfig
from tapster.runtime.engines.mlx.engine import MlxEngine
from tapster.runtime.engines.mlx.logits import open_logits
from tapster.runtime.errors import EngineError, ModelError
from tapster.runtime.profile import load_profile

MlxFolder = Callable[..., tuple[Path, FolderReport]]
Tiny = Callable[[str], TinyCheckpoint]


class MlxLm:
    """mlx-lm itself, on the same folder and in the same precision."""

    def __init__(self, folder: Path) -> None:
        self.model, _ = load_model(folder)
        self.model.set_dtype(mx.float32)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return np.array(self.model(mx.array(list(ids))[None])[0])

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        def choose(logprobs: mx.array) -> mx.array:
            columns = mx.arange(logprobs.shape[-1])
            return mx.argmax(mx.where((columns == 1) | (columns == 2), -mx.inf, logprobs), axis=-1)

        steps = generate_step(mx.array(list(ids)), self.model, max_tokens=count, sampler=choose)
        return [int(token) for token, _ in steps]


@pytest.fixture(scope="module")
def reference(mlx_folder: MlxFolder) -> MlxLm:
    return MlxLm(mlx_folder("llama", "4bit")[0])


@pytest.fixture
async def engine(mlx_folder: MlxFolder) -> AsyncIterator[MlxEngine]:
    engine = MlxEngine(load_profile(mlx_folder("llama", "4bit")[0]), MlxConfig(context=200, max_parallel=16))
    yield engine
    engine.close()


class TestMlxEngine(EngineChecks):
    """See ``engine_checks``."""


async def test_rows_for_samplers_and_choices_of_the_device_in_one_batch(engine: MlxEngine, reference: MlxLm) -> None:
    first, second = prompt(11, 12), prompt(12, 30)
    greedy = [start(engine, first, 20), start(engine, second, 9), start(engine, second, 20, top_logprobs=2)]
    sampled = [start(engine, first, 15, temperature=1.0, seed=7) for _ in range(2)]
    answers = await asyncio.gather(*map(tokens, [*greedy, *sampled]))
    assert answers[0] == reference.greedy(first, 20)
    assert answers[1] == reference.greedy(second, 9)
    assert answers[2] == reference.greedy(second, 20)
    assert answers[3] == answers[4] != answers[0][:15]


async def test_a_cancelled_sequence_keeps_so_many_tokens(engine: MlxEngine, reference: MlxLm) -> None:
    ids = prompt(13, 40)
    generation = start(engine, ids, 100)
    made = []
    async for token in generation:
        made.append(token.id)
        if len(made) == 10:
            generation.cancel(keep_tokens=6)
    longer = [*ids, *made, 5, 6, 7]
    following = start(engine, longer, 5)
    assert await tokens(following) == reference.greedy(longer, 5)
    assert following.cached_tokens == 46


async def test_a_newcomer_takes_its_beginning_from_one_that_runs(engine: MlxEngine, reference: MlxLm) -> None:
    ids = prompt(14, 60)
    running = start(engine, ids, 120)
    await anext(running)
    other = [*ids[:50], 9, 8, 7]
    newcomer = start(engine, other, 6)
    assert await tokens(newcomer) == reference.greedy(other, 6)
    assert newcomer.cached_tokens == 50
    running.cancel()


async def test_memory_that_runs_out_costs_time_and_no_answer(mlx_folder: MlxFolder, reference: MlxLm) -> None:
    engine = MlxEngine(load_profile(mlx_folder("llama", "4bit")[0]), MlxConfig(context=200))
    engine.scheduler._most_tokens = 150
    prompts = [prompt(seed, 30) for seed in range(4)]
    answers = await asyncio.gather(*(tokens(start(engine, ids, 60)) for ids in prompts))
    assert answers == [reference.greedy(ids, 60) for ids in prompts]
    assert engine.stats()["preempted"] > 0
    engine.close()


async def test_kept_caches_are_bounded(engine: MlxEngine) -> None:
    engine.scheduler.prefixes.most_bytes = 3 * 256 * engine.scheduler._model.token_bytes
    for seed in range(8):
        await tokens(start(engine, prompt(seed, 50), 3))
    stats = engine.stats()
    assert 0 < stats["kept_prefixes"] < 8
    assert stats["kept_bytes"] <= engine.scheduler.prefixes.most_bytes


async def test_a_failure_reaches_everyone(engine: MlxEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    running = start(engine, prompt(1, 10), 100)
    await anext(running)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no more memory")

    monkeypatch.setattr(engine.scheduler._batch, "_model", fail)
    with pytest.raises(EngineError, match="no more memory"):
        await tokens(running)
    assert engine.failed is not None
    with pytest.raises(EngineError):
        start(engine, prompt(1, 10), 1)


async def test_windows_and_other_shapes_of_caches(tiny_checkpoint: Tiny, mlx_folder: MlxFolder) -> None:
    """Gemma's windows of 16 tokens move on, so its caches cannot be cut."""
    folder = mlx_folder("gemma3", "bf16")[0]
    engine, model = MlxEngine(load_profile(folder), MlxConfig(context=200)), MlxLm(folder)
    prompts = [prompt(seed, 20 + 9 * seed) for seed in range(3)]
    generations = [start(engine, ids, 1, top_logprobs=0) for ids in prompts]
    found = [await anext(generation) for generation in generations]
    for ids, token in zip(prompts, found, strict=True):
        row = model.logits(ids)[-1].astype(np.float64)
        logprobs = row - row.max() - np.log(np.exp(row - row.max()).sum())
        assert token.logprob == pytest.approx(logprobs[token.id], abs=0.1)
    engine.close()


@pytest.mark.parametrize("recipe", ["llama-biases", "llama-yarn-factor", "qwen2", "arcee", "gemma3"])
def test_a_checkpoint_runs_as_it_is(recipe: str, tiny_checkpoint: Tiny) -> None:
    source = tiny_checkpoint(recipe)
    model = open_logits(load_profile(source.folder), context_tokens=128, step_tokens=64)
    found = np.concatenate([model.logits(source.tokens[:40], 0), model.logits(source.tokens[40:], 40)])
    worst = np.abs(found - source.logits).max()
    assert worst < 0.05 * np.abs(source.logits).max()
    model.forget()
    assert np.abs(model.logits(source.tokens[:3], 0) - found[:3]).max() < 0.05 * np.abs(source.logits).max()
    model.close()


def test_code_of_the_folder_runs_only_when_trusted(mlx_folder: MlxFolder) -> None:
    profile = load_profile(mlx_folder("arcee", "4bit")[0])
    with pytest.raises(ModelError, match=r"arcee\.py.*--trust-remote-code") as caught:
        MlxEngine(profile)
    assert "\n" not in str(caught.value)
    MlxEngine(profile, MlxConfig(trust_remote_code=True)).close()


def test_a_folder_without_some_weights_is_one_line(mlx_folder: MlxFolder, tmp_path: Path) -> None:
    shutil.copytree(mlx_folder("llama", "4bit")[0], tmp_path / "broken")
    config = tmp_path / "broken" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_hidden_layers": 9}))
    with pytest.raises(ModelError) as caught:
        MlxEngine(load_profile(tmp_path / "broken"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["engine.close()", ""])
def test_a_process_ends_in_peace(ending: str, mlx_folder: MlxFolder) -> None:
    """Whether or not the engine was closed: threads that mlx has started must not outlive Python."""
    program = f"""
import asyncio
from tapster.runtime.engines.mlx.engine import MlxEngine
from tapster.runtime.profile import load_profile
from tapster.runtime.sampling import SamplingParams
async def main():
    engine = MlxEngine(load_profile({str(mlx_folder("llama", "4bit")[0])!r}))
    params = SamplingParams(temperature=0, max_tokens=5, ignore_eog=True)
    print(len([token async for token in engine.generate([5, 6, 7], params)]))
    {ending}
asyncio.run(main())
"""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr
