"""How far models are from a source, through the process that measures it."""

from pathlib import Path

import pytest
from tiny_gguf import write_tiny_gguf

from tapster.runtime.errors import ModelError
from tapster.server.compare.contender import Contender
from tapster.server.compare.divergence import MeasuredAgainst, ReferenceFailed, measure_kld
from tapster.server.compare.prepare import Prepared, choose_source
from tapster.server.compare.results import Row


def found(path: Path) -> Prepared:
    return Prepared(Contender(str(path)))


async def test_another_model_of_the_same_vocabulary_is_far_and_the_same_is_not(
    tiny_model: Path, tmp_path: Path
) -> None:
    other = found(write_tiny_gguf(tmp_path / "other.gguf", seed=1))
    against = MeasuredAgainst(found(tiny_model), num_tokens=64, threads=1)
    far, near = await measure_kld(against, other), await measure_kld(against, found(tiny_model))
    assert far.overall.mean > 0.1
    assert near.overall.mean < 1e-6
    assert (near.overall.top1, near.candidate) == (1.0, tiny_model)


async def test_other_tokens_are_refused_with_one_of_them(tiny_model: Path, demo_model: Path) -> None:
    against = MeasuredAgainst(found(demo_model), num_tokens=64, threads=1)
    with pytest.raises(ModelError, match="its tokens are others than the source's: number 0 is"):
        await measure_kld(against, found(tiny_model))


async def test_a_source_that_does_not_run_is_told_apart(tiny_model: Path, tmp_path: Path) -> None:
    source = found(write_tiny_gguf(tmp_path / "source.gguf"))
    assert source.path is not None
    source.path.unlink()
    with pytest.raises(ReferenceFailed, match=r"source.gguf"):
        await measure_kld(MeasuredAgainst(source, num_tokens=64, threads=1), found(tiny_model))


def test_the_source_is_the_largest_unquantized_one(tiny_model: Path, demo_model: Path) -> None:
    tiny, demo = found(tiny_model), found(demo_model)
    assert (tiny.is_whole, demo.is_whole) == (True, False)
    pairs = [(Row(prepared.contender, name), prepared) for name, prepared in (("tiny", tiny), ("demo", demo))]
    source, why = choose_source(pairs)
    assert source is tiny
    assert why == "compared with tiny, the largest unquantized one given"
    tiny.is_whole = False
    source, why = choose_source(pairs)
    assert source is demo
    assert "which is quantized itself" in why
    assert choose_source(pairs[:1])[0] is None
