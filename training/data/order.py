"""In which order rows are learnt. An order depends on its arguments alone, so it is the same on every process and after
every resume.

Competence: arXiv 1903.09848 (Platanios et al. 2019), the square-root form c(t) = min(1, √(t·(1−c₀²)/T + c₀²)): at
step t rows are drawn from the easiest share c(t).
"""

import math
from collections.abc import Sequence

import numpy as np

from ..recipe.schema import Curriculum


def order(
    num_rows: int,
    curriculum: Curriculum,
    *,
    epoch: int,
    seed: int,
    keys: Sequence[float] | np.ndarray | None = None,
    batch_size: int = 1,
    total_steps: int = 1,
    group_size: int = 1,
) -> np.ndarray:
    """The rows of an epoch, (num_rows,) int64.

    ``keys``: each row's value of the column ``curriculum.by``; ties keep the source's order. ``batch_size`` and
    ``total_steps`` matter to competence only, which draws rows: of an epoch it may show one twice and another not at
    all. ``group_size`` neighbours (ranked answers to one question) stay together.
    """
    units = num_rows // group_size
    values = None if keys is None else np.asarray(keys, dtype=np.float64)[: units * group_size : group_size]
    found = _units(units, curriculum, epoch, seed, values, max(1, batch_size // group_size), total_steps)
    return (found[:, None] * group_size + np.arange(group_size)).reshape(-1)


def competence(step: int, total_steps: int, start: float) -> float:
    """The share of the sorted rows that step ``step`` draws from."""
    return min(1.0, math.sqrt(step * (1.0 - start**2) / max(1, total_steps) + start**2))


def _units(
    num: int, curriculum: Curriculum, epoch: int, seed: int, keys: np.ndarray | None, batch: int, steps: int
) -> np.ndarray:
    generator = np.random.default_rng([seed, epoch])
    if curriculum.order == "as-is":
        return np.arange(num, dtype=np.int64)
    if curriculum.order == "shuffle":
        return generator.permutation(num)
    assert keys is not None, f"the order {curriculum.order} needs keys"
    ascending = np.argsort(keys, kind="stable")
    if curriculum.order == "strict":
        return ascending
    if curriculum.order == "buckets":
        return np.concatenate([generator.permutation(part) for part in np.array_split(ascending, curriculum.buckets)])
    positions = np.arange(epoch * num, (epoch + 1) * num)
    return np.concatenate(
        [
            _drawn(ascending, step, competence(step, steps, curriculum.start), seed, batch)[places % batch]
            for step, places in _by_step(positions, batch)
        ]
    )


def _by_step(positions: np.ndarray, batch: int) -> list[tuple[int, np.ndarray]]:
    steps = positions // batch
    parts = np.split(positions, np.flatnonzero(np.diff(steps)) + 1)
    return [(int(part[0]) // batch, part) for part in parts if len(part)]


def _drawn(ascending: np.ndarray, step: int, share: float, seed: int, batch: int) -> np.ndarray:
    """The rows of one step, from the easiest ``share``: none twice unless there are fewer than a step needs."""
    pool = ascending[: max(1, math.ceil(share * len(ascending)))]
    generator = np.random.default_rng([seed, step, 1])
    rounds = [generator.permutation(pool) for _ in range(math.ceil(batch / len(pool)))]
    return np.concatenate(rounds)[:batch]
