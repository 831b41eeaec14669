"""Curricula: what each epoch shows, and that nothing but the arguments decides it."""

import numpy as np
import pytest

from tapster.training.data.order import competence, order
from tapster.training.recipe.schema import Curriculum

KEYS = [0.5, 0.1, 0.9, 0.1, 0.7, 0.3]


def test_strict_is_ascending_and_ties_keep_their_order() -> None:
    assert order(6, Curriculum(order="strict", by="x"), epoch=3, seed=1, keys=KEYS).tolist() == [1, 3, 5, 0, 4, 2]


def test_as_is() -> None:
    assert order(4, Curriculum(order="as-is"), epoch=1, seed=1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["shuffle", "buckets"])
def test_every_row_once_an_epoch_and_another_order_each(name: str) -> None:
    curriculum, keys = Curriculum.model_validate({"order": name, "by": "x", "buckets": 5}), np.arange(100)
    first, again, second = (order(100, curriculum, epoch=epoch, seed=7, keys=keys) for epoch in (0, 0, 1))
    assert (first == again).all()
    assert (first != second).any()
    assert sorted(first) == sorted(second) == list(range(100))


def test_buckets_go_up() -> None:
    keys = np.random.default_rng(0).permutation(100)
    found = keys[order(100, Curriculum(order="buckets", by="x", buckets=5), epoch=0, seed=7, keys=keys)]
    parts = found.reshape(5, 20)
    assert [sorted(part) for part in parts] == [list(range(20 * idx, 20 * idx + 20)) for idx in range(5)]
    assert any(list(part) != sorted(part) for part in parts)


def test_competence_by_hand() -> None:
    # sqrt(t (1 - 0.1²) / T + 0.1²): 0.1 at the start, sqrt(0.25·0.99 + 0.01) = 0.50744 at a quarter, 1 at the end
    assert competence(0, 100, 0.1) == pytest.approx(0.1)
    assert competence(25, 100, 0.1) == pytest.approx(0.507445, abs=1e-6)
    assert competence(100, 100, 0.1) == competence(500, 100, 0.1) == 1.0


def test_a_step_draws_from_what_is_easy_enough() -> None:
    curriculum = Curriculum(order="competence", by="x", start=0.1)
    keys = np.random.default_rng(1).permutation(100)
    rows = np.concatenate(
        [order(100, curriculum, epoch=e, seed=5, keys=keys, batch_size=8, total_steps=50) for e in range(4)]
    )
    for step in range(50):
        drawn = rows[8 * step : 8 * step + 8]
        assert keys[drawn].max() < np.ceil(competence(step, 50, 0.1) * 100)
        assert len(set(drawn)) == 8, "none twice in a step, also where a step goes over two epochs"
    assert keys[rows[: 8 * 5]].max() < keys[rows[8 * 40 :]].max()


def test_ranked_answers_stay_together() -> None:
    found = order(12, Curriculum(order="shuffle"), epoch=0, seed=3, group_size=3).reshape(4, 3)
    assert (found - found[:, :1] == np.arange(3)).all()
    assert sorted(found[:, 0]) == [0, 3, 6, 9]
