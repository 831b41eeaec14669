"""Slots that change rows so that a batch lies side by side."""

import random

from tapster.runtime.engines.slots.rows import Rows


def test_every_batch_lies_in_the_first_rows_and_nothing_is_lost() -> None:
    contents = list(range(9))

    def swap(a: int, b: int) -> None:
        contents[a], contents[b] = contents[b], contents[a]

    rows, rng = Rows(9, swap), random.Random(1)
    for _ in range(200):
        slots = rng.sample(range(9), rng.randint(1, 9))
        order = rows.gather(slots)
        assert [slots[index] for index in order] == contents[: len(slots)]
        assert all(contents[rows.row(slot)] == slot for slot in range(9))
        assert all(rows.slot(row) == contents[row] for row in range(9))


def test_a_batch_that_goes_on_moves_nothing() -> None:
    moved: list[tuple[int, int]] = []
    rows = Rows(6, lambda a, b: moved.append((a, b)))
    rows.gather([4, 2, 5])
    moved.clear()
    rows.gather([5, 4, 2])
    assert not moved
    rows.gather([5, 2])
    assert len(moved) <= 1
