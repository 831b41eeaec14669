"""Rows in sequences: every row once, whole, never too many."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapster.training.data.encode import IGNORED
from tapster.training.data.packing import best_fit, packed


def test_by_hand() -> None:
    # 6; 5; 4 fits behind 6 (room 4); 3 behind 5 (room 5, the only one); 2 behind 5 and 3 (room 2); 1 needs a new one
    assert best_fit([1, 2, 3, 4, 5, 6], 10) == [[0], [1, 2, 4], [3, 5]]


@given(st.lists(st.integers(1, 64), max_size=200), st.integers(64, 130))
def test_every_row_once_and_none_too_long(lengths: list[int], capacity: int) -> None:
    packs = best_fit(lengths, capacity)
    assert sorted(row for pack in packs for row in pack) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in pack) <= capacity for pack in packs)
    assert packs == best_fit(lengths, capacity)
    assert packs == slow_best_fit(lengths, capacity)


@given(st.lists(st.sets(st.integers(1, 99)), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_never_far_from_the_fewest_sequences(cuts: list[set[int]], chosen: random.Random) -> None:
    """Full sequences of 100, cut into rows and shuffled: how few can hold them is known."""
    borders = [[0, *sorted(inner), 100] for inner in cuts]
    lengths = [stop - start for line in borders for start, stop in pairwise(line)]
    chosen.shuffle(lengths)
    packs = best_fit(lengths, 100)
    assert len(packs) <= 11 / 9 * len(cuts) + 4
    loads = sorted(sum(lengths[row] for row in pack) for pack in packs)
    assert len(loads) < 2 or loads[0] + loads[1] > 100, "no two would fit into one"


@given(st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=20), min_size=1, max_size=8))
def test_a_pack_is_its_rows_one_after_the_other(rows: list[list[int]]) -> None:
    found = packed([{"input_ids": row, "labels": [token if token % 2 else IGNORED for token in row]} for row in rows])
    for segment, row in enumerate(rows):
        at = [position for position, of in enumerate(found["segments"]) if of == segment]
        assert at == list(range(at[0], at[0] + len(row)))
        assert [found["input_ids"][position] for position in at] == row
        assert [found["labels"][position] for position in at] == [
            token if token % 2 and position else IGNORED for position, token in enumerate(row)
        ]
    assert len(found["segments"]) == sum(map(len, rows))


def slow_best_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    """Looks at all sequences for the fullest; of several the one that was filled last."""
    packs: list[list[int]] = []
    touched: list[int] = []
    for time, row in enumerate(sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))):
        rooms = [capacity - sum(lengths[other] for other in pack) for pack in packs]
        fitting = [idx for idx, room in enumerate(rooms) if room >= lengths[row]]
        if not fitting:
            packs.append([row])
            touched.append(time)
            continue
        best = min(fitting, key=lambda idx: (rooms[idx], -touched[idx]))
        packs[best].append(row)
        touched[best] = time
    return sorted(sorted(pack) for pack in packs)


def test_a_row_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="a row of 11 tokens does not fit into 10"):
        best_fit([3, 11], 10)


def test_nothing_predicts_the_first_token_of_a_row() -> None:
    rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}, {"input_ids": [4, 5], "labels": [IGNORED, 5]}]
    assert packed(rows) == {
        "input_ids": [1, 2, 3, 4, 5],
        "labels": [IGNORED, 2, 3, IGNORED, 5],
        "segments": [0, 0, 0, 1, 1],
    }
