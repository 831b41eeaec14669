"""Whether an artifact stops where its source says it should, on its own token ids of texts that hold a stop.

A stop such as ``<|end|>`` may be several tokens, and others behind a full stop than at the start of a line. So each is
written behind all sorts of text, tokenized by the artifact, and fed through the runtime's own stream.
"""

from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...runtime.engines.base import Token, Tokenizer
from ...runtime.profile import ModelProfile
from ...runtime.text.scanner import Rules
from ...runtime.text.stream import TextStream
from ...runtime.text.types import Answer
from ..gguf.metadata import KNOWN_ENDS

_BEFORE = ("Hello.", "Hello", "It is 42", "f(x)", "x = 1;\n", "caf\u00e9", "\u65e5\u672c\u8a9e", "wait…", "a <b>", "")
_BEHIND = ("", "\n", " and more", "User:")
_FILL_IN_TEXTS = """<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>
    <|file_sep|>"""
"""Tokens for filling in code that llama.cpp lets an answer end with, by their text (``llama-vocab.cpp``)."""
_KNOWN = frozenset((*KNOWN_ENDS, *_FILL_IN_TEXTS.split()))


@dataclass(slots=True)
class StopReport:
    """``cases`` texts were cut where they should be; in ``merged`` of them the stop shares a token with its
    neighbours. ``problems`` has a line for what did not end."""

    strings: tuple[str, ...]
    eog_ids: tuple[int, ...]
    cases: int = 0
    merged: int = 0
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For the proof file."""
        return {
            "passed": not self.problems,
            "strings": list(self.strings),
            "eog_ids": list(self.eog_ids),
            "cases": self.cases,
            "merged": self.merged,
        }


def model_rules(profile: ModelProfile) -> Rules:
    """What ends an answer of this model when a client asks for nothing."""
    own = {*profile.stop_strings, profile.end_of_turn or ""} - {""}
    return Rules(frozenset(own), frozenset(), profile.reasoning)


def check_stops(
    profile: ModelProfile, tokenizer: Tokenizer, strings: Sequence[str], eog_ids: Iterable[int]
) -> StopReport:
    """``strings`` and ``eog_ids`` end answers of the source; ``profile`` and ``tokenizer`` are the artifact's."""
    rules = model_rules(profile)
    wanted = tuple(dict.fromkeys([*strings, *sorted(rules.always)]))
    report = StopReport(wanted, tuple(dict.fromkeys(eog_ids)))
    for token_id in report.eog_ids:
        if token_id not in tokenizer.eog_ids and not _is_stop(token_id, rules, tokenizer):
            report.problems.append(f"the token {token_id} ends answers of the source and not of the artifact")
    report.problems += _undeclared(report, rules, tokenizer)
    for stop in wanted:
        problem = next(filter(None, _try_everywhere(stop, rules, tokenizer, report)), None)
        if problem:
            report.problems.append(problem)
    return report


def _undeclared(report: StopReport, rules: Rules, tokenizer: Tokenizer) -> Iterator[str]:
    """A line for each token at which llama.cpp ends an answer, and nobody can know why."""
    for token_id in sorted(tokenizer.eog_ids - {*report.eog_ids}):
        text = tokenizer.piece(token_id).decode("utf-8", "replace")
        if text not in _KNOWN and text not in rules.always and text not in report.strings:
            yield f"the token {token_id} ({text!r}) ends answers of the artifact, and the source does not say so"


def _is_stop(token_id: int, rules: Rules, tokenizer: Tokenizer) -> bool:
    """Whether the text of a token ends answers, though nothing declares the token itself."""
    is_known = 0 <= token_id < tokenizer.vocab_size
    return is_known and tokenizer.piece(token_id).decode("utf-8", "replace") in rules.always


def _try_everywhere(stop: str, rules: Rules, tokenizer: Tokenizer, report: StopReport) -> Iterator[str | None]:
    spellings = (True, False) if stop in rules.always else (True,)
    for before in _BEFORE:
        for behind in _BEHIND:
            for parse_special in spellings:
                text = before + stop + behind
                ids = tokenizer.encode(text, parse_special=parse_special)
                alone = tokenizer.encode(before, parse_special=parse_special)
                report.cases += 1
                report.merged += ids[: len(alone)] != alone
                yield _try(text, stop, ids, rules, tokenizer)


def _try(text: str, stop: str, ids: list[int], rules: Rules, tokenizer: Tokenizer) -> str | None:
    """None when the answer ends where it should, else what is wrong."""
    data, ended = _bytes_until_eog(ids, rules, tokenizer)
    places = [place for place in map(data.find, (found.encode() for found in rules.always)) if place >= 0]
    where = data.find(stop.encode())
    latest = where if where >= 0 else len(data)
    cut = min(places, default=len(data) if ended else len(data) + 1)
    if cut > latest:
        return f"the stop {stop!r} does not end the answer {text!r}"
    stream = TextStream(_Replay(ids, tokenizer), tokenizer, rules, num_prompt_tokens=0)
    answer: Answer = _finished(stream.collect())
    got, wanted = answer.reasoning + answer.content, data[:cut].decode("utf-8", "replace")
    if answer.finish_reason != "stop" or got != wanted:
        return f"the answer {text!r} ends as {got!r} and not as {wanted!r}"
    return None


def _bytes_until_eog(ids: list[int], rules: Rules, tokenizer: Tokenizer) -> tuple[bytes, bool]:
    """The text of an answer before anything is cut off, and whether an end-of-generation token ended it."""
    data = b""
    for token_id in ids:
        if token_id in tokenizer.eog_ids:
            return data, True
        piece = tokenizer.piece(token_id)
        if not tokenizer.is_control(token_id) or rules.mentions(piece):
            data += piece
    return data, False


class _Replay:
    """A generation that gives tokens known before, as an engine would: the first that ends it is the last."""

    def __init__(self, ids: list[int], tokenizer: Tokenizer) -> None:
        self.finish_reason: str | None = None
        self.cached_tokens = 0
        self.prompt_logprobs: list[Token] | None = None
        self._ids = ids
        self._eog_ids = tokenizer.eog_ids

    async def __aiter__(self) -> AsyncIterator[Token]:
        for token_id in self._ids:
            if self.finish_reason:
                return
            is_eog = token_id in self._eog_ids
            if is_eog:
                self.finish_reason = "eog"
            yield Token(token_id, is_eog)
        self.finish_reason = self.finish_reason or "length"

    def cancel(self, keep_tokens: int | None = None) -> None:
        self.finish_reason = "cancelled"


def _finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing, whether or not an event loop runs here."""
    try:
        coroutine.send(None)
    except StopIteration as result:
        return result.value
    raise RuntimeError("a replayed answer waits for something")
