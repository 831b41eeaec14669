"""The first of several strings in a stream of bytes, without delaying a byte more than needed.

Bytes, not characters: UTF-8 is self-synchronising, so a stop string is found at the same place in both, and offsets
add up over tokens that split a character. Bytes, not tokens: `.<|end|>` may reach us as `.<` `|` `end` `|` `>`.
"""

from dataclasses import dataclass

from .automaton import Automaton


@dataclass(frozen=True, slots=True)
class Match:
    """A pattern found at byte ``start`` of the stream."""

    start: int
    pattern: bytes

    @property
    def end(self) -> int:
        """The first byte after the pattern."""
        return self.start + len(self.pattern)


class Matcher:
    """Finds the earliest occurrence of any pattern; of several that start together, the longest.

    The result does not depend on how the stream is cut into chunks. ``feed`` returns bytes that are certain to
    precede any match, at once: held back is only the longest suffix that is a proper prefix of some pattern. Once a
    pattern is complete, the search goes on for as long as one that began no later may still be completed.
    """

    def __init__(self, automaton: Automaton, start: int = 0) -> None:
        self._automaton = automaton
        self._state = 0
        self._pos = start
        self._held = b""
        self._best: Match | None = None
        self.match: Match | None = None
        self.rest = b""
        """What was fed beyond the match, once there is one."""

    def feed(self, data: bytes) -> bytes:
        """Read on. Returns what is safe to pass on; after a match, nothing more."""
        automaton = self._automaton
        step, longest, depth = automaton.step, automaton.longest, automaton.depth
        state = self._state
        text = self._held + data
        base = self._pos - len(self._held)
        for byte in data:
            state = step(state, byte)
            self._pos += 1
            found = longest[state]
            if found is not None:
                self._offer(Match(self._pos - len(found), found))
            if self._best is not None and not self._may_improve(state, self._best):
                return self._finish(self._best, text, base)
        self._state = state
        safe_end = self._pos - depth[state]
        if self._best is not None:
            safe_end = min(safe_end, self._best.start)
        safe = text[: safe_end - base]
        self._held = text[safe_end - base :]
        return safe

    def flush(self) -> bytes:
        """The stream has ended: settle for the best match so far, or give back what was held."""
        text, base = self._held, self._pos - len(self._held)
        self._held = b""
        if self._best is not None:
            return self._finish(self._best, text, base)
        return text

    def give_back(self) -> bytes:
        """What is held, for another matcher to read; this one is done."""
        held, self._held = self._held, b""
        return held

    def _offer(self, match: Match) -> None:
        best = self._best
        if best is None or (match.start, -len(match.pattern)) < (best.start, -len(best.pattern)):
            self._best = match

    def _may_improve(self, state: int, best: Match) -> bool:
        """Whether a pattern that began at or before the best match is still incomplete."""
        automaton = self._automaton
        while state and self._pos - automaton.depth[state] <= best.start:
            if automaton.can_grow[state]:
                return True
            state = automaton.fail[state]
        return False

    def _finish(self, match: Match, text: bytes, base: int) -> bytes:
        self.match = match
        self.rest = text[match.end - base :]
        self._held = b""
        return text[: match.start - base]
