"""Which row of a cache table a slot lives in: a batch needs its rows side by side, so slots move."""

from collections.abc import Callable, Sequence


class Rows:
    """A permutation of slots over rows, changed only as far as the next batch makes it necessary.

    Attention over several sequences wants one block of memory. Gathering their cells for each step would copy the
    whole cache every time; here two rows change places when a sequence joins or leaves, and never in between.
    """

    def __init__(self, num_slots: int, swap: Callable[[int, int], None]) -> None:
        self._row_of = list(range(num_slots))
        self._slot_in = list(range(num_slots))
        self._swap = swap
        """Exchanges the contents of two rows."""

    def row(self, slot: int) -> int:
        """The slot's row now."""
        return self._row_of[slot]

    def slot(self, row: int) -> int:
        """The slot that is in a row now."""
        return self._slot_in[row]

    def gather(self, slots: Sequence[int]) -> list[int]:
        """Bring ``slots`` into the first rows. Returns, for each of these rows, the index in ``slots`` of its slot."""
        wanted = {slot: index for index, slot in enumerate(slots)}
        strangers = [row for row in range(len(slots)) if self._slot_in[row] not in wanted]
        outside = [slot for slot in slots if self._row_of[slot] >= len(slots)]
        for row, slot in zip(strangers, outside, strict=True):
            self._exchange(row, self._row_of[slot])
        return [wanted[self._slot_in[row]] for row in range(len(slots))]

    def _exchange(self, row: int, other: int) -> None:
        self._swap(row, other)
        a, b = self._slot_in[row], self._slot_in[other]
        self._slot_in[row], self._slot_in[other] = b, a
        self._row_of[b], self._row_of[a] = row, other
