"""The matcher against the oracle "everything before the earliest occurrence"."""

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tapster.runtime.text.automaton import Automaton
from tapster.runtime.text.matcher import Matcher

ALPHABETS = st.sampled_from(["ab", "<|end>\n .", "é€😀<"])


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes], set[bytes]]:
    """A text, its chunks (cut anywhere, inside characters too) and a set of stops that often occur or nearly do."""
    letters = draw(ALPHABETS)
    text = draw(st.text(letters, max_size=40)).encode()
    stops = draw(st.sets(st.text(letters, min_size=1, max_size=6).map(str.encode), max_size=5))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=20)))
    edges = [0, *cuts, len(text)]
    return text, [text[a:b] for a, b in pairwise(edges)], stops


def oracle(text: bytes, stops: set[bytes]) -> tuple[bytes, bytes | None]:
    """The slow, obvious way: where each stop first occurs; the earliest, of equals the longest."""
    found = [(text.find(stop), -len(stop), stop) for stop in stops if stop in text]
    if not found:
        return text, None
    start, _, stop = min(found)
    return text[:start], stop


def read(matcher: Matcher, chunks: list[bytes]) -> bytes:
    """Everything that comes out, chunk after chunk, as a consumer would read it."""
    out = b""
    for chunk in chunks:
        out += matcher.feed(chunk)
        if matcher.match:
            return out
    return out + matcher.flush()


@settings(max_examples=2000)
@given(streams())
@example((b"xab", [b"x", b"a", b"b"], {b"xaby", b"ab"}))
@example((b"aab", [b"aab"], {b"a", b"aab"}))
def test_equals_the_oracle(case: tuple[bytes, list[bytes], set[bytes]]) -> None:
    text, chunks, stops = case
    matcher = Matcher(Automaton(sorted(stops)))
    expected, stop = oracle(text, stops)
    assert read(matcher, chunks) == expected
    assert (matcher.match.pattern if matcher.match else None) == stop
    if matcher.match:
        assert matcher.match.start == len(expected)


@settings(max_examples=1000)
@given(streams())
def test_holds_back_only_what_may_be_a_stop(case: tuple[bytes, list[bytes], set[bytes]]) -> None:
    """Zero delay: whatever is held is a proper prefix of a stop, or begins with a complete one."""
    _, chunks, stops = case
    matcher = Matcher(Automaton(sorted(stops)))
    fed, out = b"", b""
    for chunk in chunks:
        fed += chunk
        out += matcher.feed(chunk)
        if matcher.match:
            break
        held = fed[len(out) :]
        longest = max((n for stop in stops for n in range(len(stop)) if fed.endswith(stop[:n])), default=0)
        has_match = any(stop in fed for stop in stops)
        assert len(held) == longest or has_match
        assert fed.startswith(out)


def test_a_stop_split_over_chunks_is_never_shown() -> None:
    matcher = Matcher(Automaton([b"<|end|>"]))
    shown = [matcher.feed(piece) for piece in (b"Hello", b".<", b"|", b"end", b"|")]
    assert shown == [b"Hello", b".", b"", b"", b""]
    assert matcher.feed(b">\n") == b""
    assert matcher.match is not None
    assert (matcher.match.start, matcher.match.pattern, matcher.rest) == (6, b"<|end|>", b"\n")


def test_a_false_alarm_is_released_at_once() -> None:
    matcher = Matcher(Automaton([b"<|end|>"]))
    assert matcher.feed(b"a <|e") == b"a "
    assert matcher.feed(b"x") == b"<|ex"


def test_the_longest_of_two_that_start_together_is_reported() -> None:
    matcher = Matcher(Automaton([b"\n", b"\n\n"]))
    assert matcher.feed(b"yes\n") == b"yes"
    assert matcher.match is None
    assert matcher.feed(b"\nno") == b""
    assert matcher.match is not None
    assert matcher.match.pattern == b"\n\n"


def test_the_end_of_the_stream_settles_a_match_that_could_have_grown() -> None:
    matcher = Matcher(Automaton([b"\n", b"\n\n"]))
    assert matcher.feed(b"yes\n") + matcher.flush() == b"yes"
    assert matcher.match is not None
    assert matcher.match.pattern == b"\n"


def test_work_per_byte_does_not_grow_with_the_number_of_stops() -> None:
    """Counts automaton steps along failure links, the only loop: at most two per byte on average."""
    stops = [("x" * n + "y").encode() for n in range(1, 200)]
    automaton = Automaton(stops)
    lookups = 0

    class CountingEdges(dict[int, int]):
        def get(self, key: int, default: int | None = None) -> int | None:  # type: ignore[override]  keys are of one type
            nonlocal lookups
            lookups += 1
            return super().get(key, default)

    automaton.edges = [CountingEdges(edges) for edges in automaton.edges]
    text = (b"x" * 150 + b"z") * 20
    Matcher(automaton).feed(text)
    assert lookups <= 2 * len(text)
