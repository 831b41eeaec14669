"""Where an answer ends and which part of it is reasoning: stop strings and channels over a stream of bytes."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from .automaton import automaton
from .matcher import Match, Matcher


class Channel(Enum):
    """What a piece of an answer is for."""

    CONTENT = "content"
    REASONING = "reasoning"


class Segment(NamedTuple):
    """Bytes of one channel."""

    channel: Channel
    data: bytes


@dataclass(frozen=True, slots=True)
class Rules:
    """What to look for.

    ``always`` ends the answer anywhere (the model's end of turn and its own stop strings), ``visible`` only in
    content (the client's stop strings). ``reasoning`` is the pair of markers around reasoning.
    """

    always: frozenset[str] = frozenset()
    visible: frozenset[str] = frozenset()
    reasoning: tuple[str, str] | None = None
    starts_in_reasoning: bool = False

    def mentions(self, text: bytes) -> bool:
        """Whether ``text``, a control token's name, is part of anything that is looked for."""
        patterns = self.always | self.visible | frozenset(self.reasoning or ())
        return any(text in pattern.encode() for pattern in patterns)


class Scanner:
    """Cuts the stream of an answer into channels and ends it at the first stop.

    Reasoning opens only before any visible text. White space after a marker and a line break before the closing one
    belong to the markers. Every occurrence is found as if the whole text were there, however it is chunked.

    While a channel has only white space, that may still belong to a marker, so the client's stops are not looked for;
    once the channel has begun, what it keeps is read again with all its patterns.
    """

    def __init__(self, rules: Rules) -> None:
        self.match: Match | None = None
        """The stop that ended the answer."""
        self.offset = 0
        """Bytes of the stream whose fate is known."""
        self.reasoning_end: int | None = None
        """Where in the stream the reasoning and its markers end; None when it has not ended (or never began)."""
        self.channel = Channel.CONTENT
        self._always = _encode(rules.always)
        self._visible = self._always | _encode(rules.visible)
        opening, closing = (marker.encode() for marker in rules.reasoning or ("", ""))
        self._opening = opening
        self._closings = frozenset({closing, b"\n" + closing})
        self._may_open = rules.reasoning is not None
        self._has_begun = rules.reasoning is None
        self._blank = b""
        self._matcher = Matcher(automaton(self._patterns()))
        if rules.reasoning and rules.starts_in_reasoning:
            self._enter(Channel.REASONING, at=0)

    def feed(self, data: bytes) -> list[Segment]:
        """Read on. Returns what is certain to be part of the answer."""
        segments: list[Segment] = []
        self._read(data, segments)
        return segments

    def flush(self) -> list[Segment]:
        """The stream has ended by itself: give back what was held."""
        segments: list[Segment] = []
        while self.match is None:
            again = self._take(self._matcher.flush(), segments)
            if again is None and not self._has_begun:
                again = self._begin(b"")
            if again is None:
                break
            self._read(again, segments)
        return segments

    def _read(self, data: bytes, segments: list[Segment]) -> None:
        again: bytes | None = data
        while again is not None and self.match is None:
            again = self._take(self._matcher.feed(again), segments)

    def _take(self, safe: bytes, segments: list[Segment]) -> bytes | None:
        """What the matcher has passed on, and its match. Returns bytes to be read again with other patterns."""
        found = self._matcher.match
        if self._has_begun:
            self._pass_on(safe, segments)
            return self._act_on(found) if found else None
        if safe.strip() or (found and not self._is_marker(found)):
            rest = found.pattern + self._matcher.rest if found else self._matcher.give_back()
            return self._begin(safe) + rest
        self._blank += safe
        return self._act_on(found) if found else None

    def _begin(self, text: bytes) -> bytes:
        """No marker can claim the white space before ``text`` any more. Returns what is part of the channel."""
        text, self._blank = self._blank + text, b""
        kept = text if self._may_open else text.lstrip()
        self.offset += len(text) - len(kept)
        self._may_open, self._has_begun = False, True
        self._matcher = Matcher(automaton(self._patterns()), self.offset)
        return kept

    def _act_on(self, found: Match) -> bytes | None:
        """Switch at a marker, or end at a stop. Returns the bytes to be read next."""
        if not self._is_marker(found):
            self.match = found
            return None
        rest = self._matcher.rest
        if self.channel is Channel.REASONING:
            self.reasoning_end = found.end
            self._enter(Channel.CONTENT, at=found.end)
        else:
            self._enter(Channel.REASONING, at=found.end)
        return rest

    def _enter(self, channel: Channel, at: int) -> None:
        self.channel = channel
        self.offset = at
        self._may_open = self._has_begun = False
        self._blank = b""
        self._matcher = Matcher(automaton(self._patterns()), at)

    def _is_marker(self, found: Match) -> bool:
        if self.channel is Channel.REASONING:
            return found.pattern in self._closings and found.pattern not in self._always
        return self._may_open and found.pattern == self._opening and found.pattern not in self._visible

    def _patterns(self) -> frozenset[bytes]:
        if self.channel is Channel.REASONING:
            return self._always | self._closings
        if self._has_begun:
            return self._visible
        return self._always | {self._opening} if self._may_open else self._always

    def _pass_on(self, data: bytes, segments: list[Segment]) -> None:
        self.offset += len(data)
        if data:
            segments.append(Segment(self.channel, data))


def _encode(strings: Iterable[str]) -> frozenset[bytes]:
    return frozenset(string.encode("utf-8", "surrogatepass") for string in strings if string)
