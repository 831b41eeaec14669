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
    """

    def __init__(self, rules: Rules) -> None:
        self.match: Match | None = None
        """The stop that ended the answer."""
        self.offset = 0
        """Bytes of the stream whose fate is known."""
        self.reasoning_end: int | None = None
        """Where in the stream the reasoning and its markers end; None when it has not ended (or never began)."""
        self.channel = Channel.CONTENT
        self._rules = rules
        self._always = _encode(rules.always)
        self._visible = self._always | _encode(rules.visible)
        self._may_open = rules.reasoning is not None
        self._trims = False
        self._blank = b""
        self._matcher = Matcher(automaton(self._patterns()))
        if rules.reasoning and rules.starts_in_reasoning:
            self._enter(Channel.REASONING, at=0)

    def feed(self, data: bytes) -> list[Segment]:
        """Read on. Returns what is certain to be part of the answer."""
        segments: list[Segment] = []
        while self.match is None:
            could_open = self._may_open
            self._pass_on(self._matcher.feed(data), segments)
            found = self._matcher.match
            if found is not None:
                data = self._act_on(found, segments)
            elif could_open and not self._may_open:
                data = self._matcher.give_back()
                self._matcher = Matcher(automaton(self._patterns()), self.offset)
            else:
                break
        return segments

    def flush(self) -> list[Segment]:
        """The stream has ended by itself: give back what was held."""
        segments: list[Segment] = []
        while self.match is None:
            self._pass_on(self._matcher.flush(), segments)
            found = self._matcher.match
            if found is None:
                break
            rest = self._act_on(found, segments)
            segments += self.feed(rest)
        self._release_blank(segments)
        return segments

    def _act_on(self, found: Match, segments: list[Segment]) -> bytes:
        """End at a stop or switch at a marker. Returns the bytes to be read next."""
        rest = self._matcher.rest
        opening, closing = self._rules.reasoning or ("", "")
        is_opening = found.pattern == opening.encode() and found.pattern not in self._visible
        is_closing = self.channel is Channel.REASONING and found.pattern.strip(b"\n") == closing.encode().strip(b"\n")
        if is_closing:
            self.reasoning_end = found.end
            self._enter(Channel.CONTENT, at=found.end)
        elif is_opening and self._may_open:
            self._blank = b""
            self._enter(Channel.REASONING, at=found.end)
        elif is_opening:
            self._matcher = Matcher(automaton(self._patterns()), found.start)
            return found.pattern + rest
        else:
            self._release_blank(segments)
            self.match = found
        return rest

    def _enter(self, channel: Channel, at: int) -> None:
        self.channel = channel
        self.offset = at
        self._may_open = False
        self._trims = True
        self._matcher = Matcher(automaton(self._patterns()), at)

    def _patterns(self) -> frozenset[bytes]:
        if self._rules.reasoning is None:
            return self._visible
        opening, closing = (marker.encode() for marker in self._rules.reasoning)
        if self.channel is Channel.REASONING:
            return self._always | {closing, b"\n" + closing}
        return self._visible | {opening} if self._may_open else self._visible

    def _pass_on(self, data: bytes, segments: list[Segment]) -> None:
        self.offset += len(data)
        if self._trims:
            data = data.lstrip()
            self._trims = not data
        elif self._may_open:
            self._blank += data
            if not self._blank.strip():
                return
            data, self._blank = self._blank, b""
            self._may_open = False
        if data:
            segments.append(Segment(self.channel, data))

    def _release_blank(self, segments: list[Segment]) -> None:
        if self._blank:
            segments.append(Segment(self.channel, self._blank))
            self._blank = b""


def _encode(strings: Iterable[str]) -> frozenset[bytes]:
    return frozenset(string.encode("utf-8", "surrogatepass") for string in strings if string)
