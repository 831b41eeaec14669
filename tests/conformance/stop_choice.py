"""Stops chosen out of an answer: pure functions of the pieces in which it came, which show where its tokens end.

Every chooser returns stops of which the first occurrence is known, or None where the answer has no such place.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise

NEVER = "\N{SYMBOL FOR END OF TRANSMISSION}"
"""A character that no answer has."""

Chooser = Callable[[Sequence[str]], list[str] | None]


def cut(text: str, stops: Sequence[str]) -> str:
    """What is left of a text: everything before the earliest stop."""
    return text[: min((at for at in map(text.find, stops) if at >= 0), default=len(text))]


def shown(pieces: Sequence[str], stops: Sequence[str]) -> list[str]:
    """How the pieces of an answer without any of the stops arrive when only what may become one is held back."""
    text, out, num_out = "", [], 0
    for piece in pieces:
        text += piece
        safe = len(text) - held(text, stops)
        if safe > num_out:
            out.append(text[num_out:safe])
            num_out = safe
    return [*out, text[num_out:]] if num_out < len(text) else out


def held(text: str, stops: Sequence[str]) -> int:
    """The length of the longest end of a text that is the beginning of a stop."""
    lengths = (length for stop in stops for length in range(1, len(stop)) if text.endswith(stop[:length]))
    return max(lengths, default=0)


def inside_a_token(pieces: Sequence[str]) -> list[str] | None:
    """The middle of one piece."""
    return _first_new(pieces, ((at + 1, piece[1:-1]) for at, piece in _placed(pieces) if len(piece) > 2))


def across_two_tokens(pieces: Sequence[str]) -> list[str] | None:
    """From the middle of a piece to the middle of the next."""
    return _first_new(pieces, _across(pieces, 2))


def across_three_tokens(pieces: Sequence[str]) -> list[str] | None:
    """From the middle of a piece to the middle of the next but one."""
    return _first_new(pieces, _across(pieces, 3))


def whole_tokens(pieces: Sequence[str]) -> list[str] | None:
    """Two whole pieces."""
    placed = list(_placed(pieces))
    pairs = ((at, piece + after) for (at, piece), (_, after) in pairwise(placed))
    return _first_new(pieces, pairs)


def the_end(pieces: Sequence[str]) -> list[str] | None:
    """The last characters: the stop completes with the last token."""
    text = "".join(pieces)
    return next(([text[at:]] for at in range(len(text) - 2, 0, -1) if text.find(text[at:]) == at), None)


def the_very_start(pieces: Sequence[str]) -> list[str] | None:
    """The first characters: nothing is left."""
    return ["".join(pieces)[:3]] if pieces else None


def white_space(pieces: Sequence[str]) -> list[str] | None:
    """A space with the word after it, as tokenizers join them."""
    text = "".join(pieces)
    at = text.find(" ", 3)
    return [text[at : at + 3]] if 0 < at == text.find(text[at : at + 3]) else None


def later_one_first(pieces: Sequence[str]) -> list[str] | None:
    """Two stops of one token, the later one first in the list: the earlier one in the text has to win."""
    word = next((piece for piece in map(str.strip, pieces[2:]) if len(piece) > 3), None)
    return [word[2:], word[:2]] if word else None


def earlier_one_first(pieces: Sequence[str]) -> list[str] | None:
    """The same two the other way round."""
    stops = later_one_first(pieces)
    return stops and stops[::-1]


def one_inside_another(pieces: Sequence[str]) -> list[str] | None:
    """A short stop that completes before the long one around it: the long one begins first and wins."""
    around = across_three_tokens(pieces) or across_two_tokens(pieces)
    if not around or len(around[0]) < 4:
        return None
    inner, text = around[0][1:-1], "".join(pieces)
    return [inner, around[0]] if text.find(inner) == text.find(around[0]) + 1 else None


def one_begins_another(pieces: Sequence[str]) -> list[str] | None:
    """A stop and a longer one that begins with it."""
    longer = across_two_tokens(pieces)
    return longer and [longer[0], longer[0][:2]]


def overlapping(pieces: Sequence[str]) -> list[str] | None:
    """Two stops of which the second begins within the first."""
    both = across_three_tokens(pieces)
    return [both[0][2:], both[0][:-1]] if both and len(both[0]) > 4 else None


def three_that_never_come(pieces: Sequence[str]) -> list[str] | None:
    """One that comes among three that do not, all with beginnings that do."""
    comes = across_two_tokens(pieces)
    return comes and [pieces[0] + NEVER, comes[0][:2] + NEVER, comes[0], pieces[1] + NEVER]


def beyond_ascii(pieces: Sequence[str]) -> list[str] | None:
    """The second different character of more than one byte, which most tokenizers cut in the middle."""
    wide = list(dict.fromkeys(char for char in "".join(pieces) if ord(char) > 127))
    return wide[1:2] or wide[:1] or None


def beyond_ascii_pair(pieces: Sequence[str]) -> list[str] | None:
    """Two characters of several bytes in a row."""
    text = "".join(pieces)
    pairs = (text[at : at + 2] for at in range(1, len(text)) if min(map(ord, text[at : at + 2])) > 127)
    return next(([pair] for pair in pairs if len(pair) == 2), None)


IN_WORDS: dict[str, Chooser] = {
    chooser.__name__: chooser
    for chooser in (
        inside_a_token,
        across_two_tokens,
        across_three_tokens,
        whole_tokens,
        the_end,
        the_very_start,
        white_space,
        later_one_first,
        earlier_one_first,
        one_inside_another,
        one_begins_another,
        overlapping,
        three_that_never_come,
    )
}
BEYOND_ASCII: dict[str, Chooser] = {chooser.__name__: chooser for chooser in (beyond_ascii, beyond_ascii_pair)}


def _placed(pieces: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The pieces from the third on with their places."""
    places = accumulate(map(len, pieces), initial=0)
    yield from list(zip(places, pieces, strict=False))[2:]


def _across(pieces: Sequence[str], count: int) -> Iterator[tuple[int, str]]:
    placed = list(_placed(pieces))
    for idx in range(len(placed) - count + 1):
        (at, first), (_, last) = placed[idx], placed[idx + count - 1]
        if len(first) > 1 and len(last) > 1:
            yield at + 1, "".join(piece for _, piece in placed[idx : idx + count])[1:-1]


def _first_new(pieces: Sequence[str], candidates: Iterator[tuple[int, str]]) -> list[str] | None:
    """The first candidate that the text has not had before."""
    text = "".join(pieces)
    return next(([stop] for at, stop in candidates if text.find(stop) == at), None)
