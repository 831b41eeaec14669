"""The cells of the key-value cache: who holds them, what is kept for later prompts, what goes first."""

import time
from collections.abc import Iterable

from .context import LlamaContext
from .parking import ParkedPrefix, ParkedPrefixes
from .prefix_tree import PrefixTree

WORTH_PARKING = 32
"""Prefixes shorter than this are computed again rather than copied."""


class CellCache:
    """Sequence ids and their cells. Finished sequences stay as *idle* prefixes: in their cells until something else
    runs, then *parked* in ordinary memory.

    With ``is_shareable`` false (recurrent states, which have no cells to share) nothing is kept or shared.
    Invariant: ``used`` is the number of occupied cells: those in the tree plus what running sequences generated and
    have not registered (``private``).
    """

    def __init__(self, context: LlamaContext, max_seqs: int, *, is_shareable: bool, most_parked: int) -> None:
        self._context = context
        self.is_shareable = is_shareable
        self._tree = PrefixTree()
        self._parked = ParkedPrefixes(most_parked)
        self._free_ids = list(range(max_seqs - 1, -1, -1))
        self._idle: dict[int, float] = {}
        self.private = 0

    @property
    def total(self) -> int:
        """Cells of the cache."""
        return self._context.cells

    @property
    def used(self) -> int:
        """Occupied cells, those of idle prefixes included."""
        return self._tree.num_cells + self.private

    @property
    def num_idle(self) -> int:
        """Finished sequences whose prefix is in the cells."""
        return len(self._idle)

    @property
    def num_parked(self) -> int:
        """Prefixes in ordinary memory."""
        return len(self._parked)

    def match(self, ids: list[int], limit: int) -> int:
        """How many of the first ``limit`` tokens are in the cache or parked."""
        return max(self._tree.match(ids, limit)[0], self._parked.match(ids, limit)[0])

    def held(self, ids: list[int], limit: int, running: Iterable[int]) -> int:
        """How many of the first ``limit`` tokens are in cells that running sequences hold anyway."""
        return self._tree.match(ids, limit, set(running))[0]

    def open(self, ids: list[int] | None = None, limit: int = 0) -> tuple[int, int]:
        """Take a sequence id, with the longest known prefix of ``ids[:limit]``. Returns the id and its length."""
        length, owner = self._tree.match(ids, limit) if ids else (0, None)
        if owner in self._idle:
            self._idle[owner] = time.monotonic()
        seq_id = self._take_id(keep=owner)
        if not ids:
            return seq_id, 0
        parked_length, prefix = self._parked.match(ids, limit)
        if (
            prefix is not None
            and parked_length >= length + WORTH_PARKING
            and self._unpark(seq_id, prefix, parked_length)
        ):
            return seq_id, parked_length
        if owner is not None and owner in self._tree:
            self._context.share(owner, seq_id, 0, length)
            self._tree.share(seq_id, ids, length)
            return seq_id, length
        return seq_id, 0

    def register(self, seq_id: int, ids: list[int], length: int) -> None:
        """Make ``ids[:length]``, which the sequence has computed, known to later prompts. Duplicates are shared."""
        if not self.is_shareable:
            return
        self.private -= length - self._tree.length(seq_id)
        for double in self._tree.extend(seq_id, ids, length):
            self._context.free(seq_id, double.start, double.end)
            self._context.share(double.owner, seq_id, double.start, double.end)

    def finish(self, seq_id: int, ids: list[int], computed: int, keep: int) -> None:
        """Keep the first ``keep`` of a finished sequence's ``computed`` tokens as an idle prefix; free the rest."""
        if not self.is_shareable:
            self.discard(seq_id, computed)
            return
        keep = max(self._tree.length(seq_id), min(keep, computed))
        self._context.free(seq_id, keep)
        self.private -= computed - keep
        self.register(seq_id, ids, keep)
        self._idle[seq_id] = time.monotonic()
        idle = set(self._idle)
        for candidate in sorted(idle):
            if self._tree.is_covered(candidate, idle - {candidate}):
                self._drop(candidate)
                idle.discard(candidate)

    def discard(self, seq_id: int, computed: int) -> None:
        """Free a sequence's cells, keeping nothing that it alone holds."""
        self.private -= computed - self._tree.length(seq_id)
        self._drop(seq_id)

    def reserve(self, wanted: int) -> int:
        """Move idle prefixes out, the longest unused first, until ``wanted`` cells are free. Returns what is free."""
        while self.total - self.used < wanted and self._idle:
            self._evict(self._oldest())
        return self.total - self.used

    def park_one(self, running: Iterable[int], *, spare_latest: bool) -> bool:
        """Move the longest unused idle prefix out of the cells, unless running sequences share most of it.

        One that is too long to be parked stays where it is until its cells are needed. With ``spare_latest`` the
        latest stays, since a chat usually goes on. Returns whether there may be more.
        """
        held = set(running)
        candidates = sorted(self._idle, key=self._idle.__getitem__)[: -1 if spare_latest else None]
        for seq_id in candidates:
            fits = self._parked.has_place_for(self._tree.length(seq_id))
            if fits and self._tree.exclusive_cells(seq_id, held) >= WORTH_PARKING:
                self._evict(seq_id)
                return True
        return False

    def available(self, running: Iterable[int]) -> int:
        """Cells that are free or could be if all idle prefixes went."""
        return self.total - self.private - self._tree.cells_held_by(set(running))

    def _take_id(self, keep: int | None) -> int:
        if not self._free_ids:
            candidates = [seq_id for seq_id in self._idle if seq_id != keep] or list(self._idle)
            self._evict(min(candidates, key=self._idle.__getitem__))
        return self._free_ids.pop()

    def _oldest(self) -> int:
        return min(self._idle, key=self._idle.__getitem__)

    def _evict(self, seq_id: int) -> None:
        tokens = self._tree.tokens(seq_id)
        if len(tokens) >= WORTH_PARKING and self._parked.has_place_for(len(tokens)):
            self._parked.add(ParkedPrefix(tokens, self._context.save(seq_id)))
        self._drop(seq_id)

    def _unpark(self, seq_id: int, prefix: ParkedPrefix, length: int) -> bool:
        """Copy the first ``length`` tokens of a parked prefix into the cells of a new sequence."""
        if self.reserve(len(prefix.tokens)) < len(prefix.tokens) or not self._context.restore(seq_id, prefix.state):
            return False
        self._parked.use(prefix, length)
        self._context.free(seq_id, length)
        self.private += length
        self.register(seq_id, prefix.tokens, length)
        return True

    def _drop(self, seq_id: int) -> None:
        self._context.free(seq_id)
        self._tree.remove(seq_id)
        self._idle.pop(seq_id, None)
        self._free_ids.append(seq_id)
