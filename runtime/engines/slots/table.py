"""Which slot holds which tokens: who runs in it, what an idle one is kept for, which goes first."""

from dataclasses import dataclass, field

from ..local.prefix import common_prefix
from ..local.sequence import LocalSequence
from .model import SlotModel

WORTH_COPYING = 32
"""An idle slot is taken over rather than copied when no more of its tokens than this would be lost."""


@dataclass(slots=True, eq=False)
class _Slot:
    """``tokens`` is what an idle slot holds; a running one holds what its owner has computed."""

    index: int
    tokens: list[int] = field(default_factory=list)
    owner: LocalSequence | None = None
    last_used: int = 0

    @property
    def num_held(self) -> int:
        return self.owner.num_computed if self.owner else len(self.tokens)

    def shared(self, ids: list[int], limit: int) -> int:
        """How many of the first ``limit`` ids the slot begins with."""
        tokens = self.owner.tokens if self.owner else self.tokens
        return common_prefix(tokens, 0, ids, 0, min(limit, self.num_held))


class SlotTable:
    """The slots of a model. A finished sequence's tokens stay in its slot until another sequence needs it."""

    def __init__(self, model: SlotModel) -> None:
        self._model = model
        self._slots = [_Slot(index) for index in range(model.num_slots)]
        self._clock = 0

    @property
    def num_used(self) -> int:
        """Tokens in the cache, of running and idle slots."""
        return sum(slot.num_held for slot in self._slots)

    @property
    def num_idle(self) -> int:
        """Idle slots that hold something."""
        return sum(1 for slot in self._slots if slot.owner is None and slot.tokens)

    def match(self, ids: list[int], limit: int) -> int:
        """How many of the first ``limit`` ids are in a slot and can be taken from there."""
        return self._best(ids, limit)[0]

    def open(self, seq: LocalSequence, limit: int) -> None:
        """Give the sequence a slot with the longest known prefix of its first ``limit`` tokens.

        Sets its ``seq_id`` and ``num_computed``. There must be a slot that nothing runs in.
        """
        length, source = self._best(seq.tokens, limit)
        target = self._target(source, length)
        if source is not None and source is not target and length:
            target.tokens = []  # whether the copy is made or there is no memory for it
            self._model.copy(source.index, target.index, length)
        if source is not None:
            source.last_used = self._tick()
        target.tokens, target.owner, target.last_used = [], seq, self._tick()
        seq.seq_id, seq.num_computed = target.index, length

    def close(self, seq: LocalSequence, keep: int) -> None:
        """The sequence has ended: its slot goes on holding the first ``keep`` of its tokens, if they are computed."""
        assert seq.seq_id is not None
        slot = self._slots[seq.seq_id]
        is_cut = keep < seq.num_computed
        slot.tokens = [] if is_cut and not self._model.can_rewind else seq.tokens[: min(keep, seq.num_computed)]
        slot.owner, slot.last_used = None, self._tick()
        seq.seq_id = None
        self._forget_covered()

    def _best(self, ids: list[int], limit: int) -> tuple[int, _Slot | None]:
        """The longest usable prefix and its slot; of equals an idle one that would lose least."""
        best: tuple[tuple[int, bool, int], _Slot | None] = ((0, False, 0), None)
        for slot in self._slots:
            length = slot.shared(ids, limit)
            if not length or (not self._model.can_rewind and length < slot.num_held):
                continue
            rank = (length, slot.owner is None, -slot.num_held)
            if best[1] is None or rank > best[0]:
                best = rank, slot
        return best[0][0], best[1]

    def _target(self, source: _Slot | None, length: int) -> _Slot:
        idle = [slot for slot in self._slots if slot.owner is None]
        others = [slot for slot in idle if slot is not source]
        if source in idle and (source.num_held - length <= WORTH_COPYING or not others):
            return source
        return min(others, key=lambda slot: (bool(slot.tokens), slot.last_used))

    def _forget_covered(self) -> None:
        """Empty an idle slot whose tokens another idle one begins with."""
        idle = [slot for slot in self._slots if slot.owner is None and slot.tokens]
        for slot in idle if self._model.can_rewind else ():
            if any(other is not slot and _covers(other, slot) for other in idle):
                slot.tokens = []

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def _covers(other: _Slot, slot: _Slot) -> bool:
    return bool(slot.tokens) and other.shared(slot.tokens, len(slot.tokens)) == len(slot.tokens)
