"""The text of one answer while it is made: tokens in, deltas out, and everything cut at the same place."""

import codecs
import time
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator

from ..engines.base import Generation, Logprob, Token, Tokenizer
from .scanner import Channel, Rules, Scanner, Segment
from .types import Answer, Delta, FinishReason, Timing, TokenText, Usage


class TextStream:
    """Iterate for the deltas of an answer; concatenated they are the answer, whichever way it ends.

    A stop or a cancel drops what was held back, the end of generation and the length limit release it. When a stop
    matches, the engine is told to end and how much of its cache is still of use. After the end, ``finish_reason`` is
    ``stop`` or ``length`` (None after a cancel) and ``stop_reason`` the stop string that matched. ``usage`` grows as
    the answer does. Another task may cancel while one iterates.
    """

    def __init__(
        self,
        generation: Generation,
        tokenizer: Tokenizer,
        rules: Rules,
        *,
        num_prompt_tokens: int,
        wants_tokens: bool = False,
        includes_stop: bool = False,
    ) -> None:
        self.finish_reason: FinishReason | None = None
        self.stop_reason: str | None = None
        self.usage = Usage(prompt_tokens=num_prompt_tokens)
        self.timing = Timing(time.monotonic())
        self._generation = generation
        self._tokens = aiter(generation)
        self._tokenizer = tokenizer
        self._rules = rules
        self._scanner = Scanner(rules)
        self._decoders = {channel: _decoder() for channel in Channel}
        self._channel = self._scanner.channel
        self._wants_tokens = wants_tokens
        self._includes_stop = includes_stop
        self._control: dict[int, bytes] = {}
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._length = 0
        self._undelivered: list[TokenText] = []
        self._num_delivered = 0
        self._is_over = False

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        while not self._is_over:
            token = await anext(self._tokens, None)
            if self._is_over:
                break
            delta = self._end_of_tokens() if token is None else self._read(token)
            if delta is not None:
                return delta
        raise StopAsyncIteration

    async def collect(self) -> Answer:
        """The whole answer. Cancels the generation when the caller is cancelled."""
        content, reasoning, answer = [], [], Answer(usage=self.usage)
        try:
            async for delta in self:
                content.append(delta.content)
                reasoning.append(delta.reasoning)
                answer.tokens.extend(delta.tokens)
        finally:
            self.cancel()
        answer.content, answer.reasoning = "".join(content), "".join(reasoning)
        answer.finish_reason, answer.stop_reason = self.finish_reason, self.stop_reason
        return answer

    def cancel(self) -> None:
        """End now; what was held back is dropped. Nothing happens after the end."""
        if not self._is_over:
            self._generation.cancel()
            self._close(cut=self._length)

    @property
    def prompt_tokens(self) -> list[TokenText] | None:
        """The prompt's tokens with log-probabilities, when they were asked for; known with the first delta."""
        scored = self._generation.prompt_logprobs
        return None if scored is None else [self._token_text(token) for token in scored]

    def _read(self, token: Token) -> Delta | None:
        if self.timing.first_token_s is None:
            self.timing.first_token_s = time.monotonic()
            self.usage.cached_tokens = self._generation.cached_tokens
        if token.is_eog:
            return None
        data = self._bytes(token.id)
        self._starts.append(self._length)
        self._length += len(data)
        self._ends.append(self._length)
        if self._wants_tokens:
            self._undelivered.append(self._token_text(token))
        segments = self._scanner.feed(data)
        if self._scanner.match is not None:
            return self._stop(segments)
        self.usage.completion_tokens = bisect_right(self._ends, self._scanner.offset)
        self.usage.reasoning_tokens = self._num_reasoning(self._scanner.offset)
        return self._delta(segments, self.usage.completion_tokens)

    def _end_of_tokens(self) -> Delta | None:
        self.usage.cached_tokens = self._generation.cached_tokens
        segments = self._scanner.flush()
        if self._scanner.match is not None:
            return self._stop(segments)
        self.finish_reason = "length" if self._generation.finish_reason == "length" else "stop"
        self._close(cut=self._length + 1)
        return self._delta(segments, len(self._ends), is_last=True)

    def _stop(self, segments: list[Segment]) -> Delta | None:
        match = self._scanner.match
        assert match is not None
        self.finish_reason = "stop"
        self.stop_reason = match.pattern.decode("utf-8", "replace")
        self._generation.cancel(keep_tokens=bisect_right(self._ends, match.start))
        cut = match.start
        if self._includes_stop:
            segments.append(Segment(self._scanner.channel, match.pattern))
            cut = match.end
        self._close(cut)
        return self._delta(segments, self.usage.completion_tokens, is_last=True)

    def _close(self, cut: int) -> None:
        """Count the tokens that begin before byte ``cut``: those that the text shows at least in part."""
        self._is_over = True
        self.timing.finished_s = time.monotonic()
        whole = bisect_right(self._ends, cut if self._scanner.match is None else self._scanner.match.start)
        self.usage.completion_tokens = max(whole, bisect_left(self._starts, cut))
        self.usage.reasoning_tokens = self._num_reasoning(cut)

    def _num_reasoning(self, cut: int) -> int:
        """How many of the tokens that begin before byte ``cut`` begin in reasoning or its markers."""
        end = self._scanner.reasoning_end
        if end is None:
            end = cut if self._scanner.channel is Channel.REASONING else 0
        return bisect_left(self._starts, min(end, cut))

    def _delta(self, segments: list[Segment], num_tokens: int, *, is_last: bool = False) -> Delta | None:
        texts = {Channel.CONTENT: "", Channel.REASONING: ""}
        for channel, data in segments:
            if channel is not self._channel:
                texts[self._channel] += self._decoders[self._channel].decode(b"", True)
                self._channel = channel
            texts[channel] += self._decoders[channel].decode(data)
        if is_last:
            texts[self._channel] += self._decoders[self._channel].decode(b"", True)
        tokens = self._take_tokens(num_tokens)
        if not (tokens or texts[Channel.CONTENT] or texts[Channel.REASONING]):
            return None
        return Delta(texts[Channel.CONTENT], texts[Channel.REASONING], tokens)

    def _take_tokens(self, upto: int) -> tuple[TokenText, ...]:
        if not self._wants_tokens or upto <= self._num_delivered:
            return ()
        count = upto - self._num_delivered
        self._num_delivered = upto
        taken, self._undelivered = self._undelivered[:count], self._undelivered[count:]
        return tuple(taken)

    def _bytes(self, token_id: int) -> bytes:
        """A token's contribution to the text: nothing for a control token, unless something looks for its name."""
        if not self._tokenizer.is_control(token_id):
            return self._tokenizer.piece(token_id)
        data = self._control.get(token_id)
        if data is None:
            name = self._tokenizer.piece(token_id)
            data = self._control[token_id] = name if self._rules.mentions(name) else b""
        return data

    def _token_text(self, token: Token) -> TokenText:
        top = tuple(map(self._alternative, token.top or ()))
        return TokenText(token.id, self._tokenizer.piece(token.id), token.logprob, top)

    def _alternative(self, choice: Logprob) -> TokenText:
        return TokenText(choice.id, self._tokenizer.piece(choice.id), choice.logprob)


def _decoder() -> codecs.IncrementalDecoder:
    """Bytes that are not yet valid UTF-8 wait; those that never become it come out as U+FFFD."""
    return codecs.getincrementaldecoder("utf-8")("replace")
