"""The raw replay against plain decoding."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from reference import Reference

from tapster.runtime.errors import ModelError
from tapster.server.bench.ceiling import ceiling_process
from tapster.server.bench.memory import cache_bytes
from tapster.server.bench.prompts import prompts
from tapster.server.bench.replay import RawReplay, common_prefix
from tapster.server.bench.scenarios import LOADS, Load


@pytest.fixture(scope="module")
def replay(demo_model: Path) -> Iterator[RawReplay]:
    replay = RawReplay(demo_model, threads=1, micro_batches=(256,))
    yield replay
    replay.close()


def test_prompts_have_the_tokens_they_claim(replay: RawReplay) -> None:
    for name, expected in {"single": [31], "concurrent": [50] * 8, "shared": [734] * 8}.items():
        ids = [replay.tokenize(text) for text in LOADS[name]("seed").prompts]
        assert [len(one) for one in ids] == expected
        assert common_prefix(ids) >= (712 if name == "shared" else 0)


def test_replayed_tokens_are_those_of_one_plain_sequence(replay: RawReplay, demo_model: Path) -> None:
    texts = ("The capital of France is", "One two three four five six", "The sun rises in the")
    ids = [replay.tokenize(text) for text in texts]
    reference = Reference(demo_model, context=128, threads=1)
    expected = [reference.greedy(one, 5) for one in ids]
    reference.close()
    assert replay.run(ids, 5).tokens == expected


def test_a_copied_prefix_changes_nothing(replay: RawReplay) -> None:
    ids = [replay.tokenize(f"The capital of {country} is the city of") for country in ("France", "Japan", "Egypt")]
    assert common_prefix(ids) == 3
    timing = replay.run(ids, 5, has_prefix=True)
    assert timing.tokens == replay.run(ids, 5).tokens
    assert 0 < timing.prefill_s < timing.wall_s


def test_prompts_longer_than_a_batch_are_cut(replay: RawReplay, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [replay.tokenize(text) for text in ("One two three four five six seven", "The capital of France is")]
    whole = replay.run(ids, 5).tokens
    monkeypatch.setattr("tapster.server.bench.replay.BATCH_TOKENS", 4)
    assert replay.run(ids, 5).tokens == whole


def test_common_prefix_leaves_a_token_of_each() -> None:
    assert common_prefix([[1, 2, 3], [1, 2, 4]]) == 2
    assert common_prefix([[1, 2], [1, 2, 3]]) == 1
    assert common_prefix([[1, 2], [3, 4]]) == 0


async def test_the_replay_runs_in_a_process_that_ends(demo_model: Path) -> None:
    async with ceiling_process(demo_model, threads=1, micro_batches=(256,)) as ceiling:
        pid = ceiling.process.process.pid
        result = await ceiling.measure(Load(prompts(2, 8, "a"), new_tokens=3))
        assert result.prompt_tokens == [8, 8]
        assert 0 < result.prefill_s < result.wall_s
        assert ceiling.micro_batch == 256
    assert not psutil.pid_exists(pid)


async def test_the_replay_says_which_file_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(ModelError, match=r"llama.cpp cannot load .*broken.gguf"):
        async with ceiling_process(path, threads=1):
            pass


def test_cache_bytes_of_the_demo_model(demo_model: Path) -> None:
    # 30 layers, 3 key-value heads of 64, keys and values, 2 bytes each
    assert cache_bytes(demo_model, cells=8192) == 8192 * 30 * 3 * 64 * 2 * 2
