"""Several rows in one sequence, so that little of a batch is padding.

Best fit decreasing: rows from the longest to the shortest, each into the fullest sequence that still has room for it.
Rows are never cut. (Bin packing, Johnson 1974: never more than 11/9 of the fewest sequences possible, and 4.)
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from .encode import IGNORED


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """The rows of each sequence, ascending; sequences in the order of their first rows. Every row is in exactly one.

    ValueError for a row that is longer than ``capacity``. Time: the number of rows times the logarithm of ``capacity``.
    """
    if any(length > capacity for length in lengths):
        raise ValueError(f"a row of {max(lengths)} tokens does not fit into {capacity}")
    rooms = _Rooms(capacity)
    packs: list[list[int]] = []
    by_room: dict[int, list[int]] = defaultdict(list)
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        room = rooms.smallest_from(lengths[row])
        if room is None:
            room = capacity
            packs.append([])
            pack = len(packs) - 1
        else:
            pack = by_room[room].pop()
            rooms.add(room, -1)
        packs[pack].append(row)
        by_room[room - lengths[row]].append(pack)
        rooms.add(room - lengths[row], 1)
    return sorted(sorted(pack) for pack in packs)


class _Rooms:
    """How many sequences have how much room left: a binary tree of counts over 0…capacity."""

    def __init__(self, capacity: int) -> None:
        self._leaves = 1 << capacity.bit_length()
        self._counts = [0] * (2 * self._leaves)

    def add(self, room: int, count: int) -> None:
        node = room + self._leaves
        while node:
            self._counts[node] += count
            node //= 2

    def smallest_from(self, room: int) -> int | None:
        """The smallest room that is at least this large."""
        node = room + self._leaves
        while not self._counts[node]:
            while node % 2:  # a right child: what is larger hangs further up
                node //= 2
            if node == 0:
                return None
            node += 1
        while node < self._leaves:
            node = 2 * node if self._counts[2 * node] else 2 * node + 1
        return node - self._leaves


def packed(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """One row of several: tokens and labels one after the other, and of which row each token is (``segments``). Nothing
    predicts the first token of a row, so it is not learnt."""
    ids, labels, segments = [], [], []
    for segment, row in enumerate(rows):
        ids += row["input_ids"]
        labels += [IGNORED, *row["labels"][1:]]
        segments += [segment] * len(row["input_ids"])
    return {"input_ids": ids, "labels": labels, "segments": segments}
