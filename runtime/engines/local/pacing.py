"""How much of a long prompt goes into one step, so that running streams do not stall."""

import bisect

GAP_FACTOR = 3.5
"""A step with prompt tokens may take this many times as long as one without."""
MIN_CHUNK = 4
_NEW = 0.3


class Pacer:
    """Learns what steps cost on this machine and sizes prompt chunks by time.

    The model of a step's time is ``decode[n] + per_token * prompt_tokens``: on a CPU both are close to linear
    (measured from 4 to 512 tokens), and both are running averages, so they follow load, context and threads.
    """

    def __init__(self) -> None:
        self._decode_s: dict[int, float] = {}
        self._prefill_token_s: float | None = None

    def observe(self, num_decode: int, num_prefill: int, step_s: float) -> None:
        """Learn from one step of ``num_decode`` sequences and ``num_prefill`` prompt tokens that took ``step_s``."""
        if not num_prefill:
            self._decode_s[num_decode] = _blend(self._decode_s.get(num_decode), step_s)
            return
        prompt_s = step_s - (self.decode_s(num_decode) if num_decode else 0.0)
        if prompt_s > 0 and num_prefill >= MIN_CHUNK:
            self._prefill_token_s = _blend(self._prefill_token_s, prompt_s / num_prefill)

    def decode_s(self, num_decode: int) -> float:
        """Expected seconds of a step of ``num_decode`` sequences and nothing else; 0 when nothing is known."""
        if num_decode in self._decode_s or not self._decode_s:
            return self._decode_s.get(num_decode, 0.0)
        known = sorted(self._decode_s)
        nearest = known[min(bisect.bisect_left(known, num_decode), len(known) - 1)]
        return self._decode_s[nearest]

    def prefill_budget(self, num_decode: int, num_prefilling: int, most: int) -> int:
        """Prompt tokens to put into the next step, at most ``most``.

        Without running streams a step is filled. Otherwise the step may grow to GAP_FACTOR times a plain one, or
        further when more sequences wait for their first token than would notice the gap.
        """
        if not num_decode:
            return most
        decode_s = self.decode_s(num_decode)
        if not decode_s or not self._prefill_token_s:
            return min(most, 16)
        patience = max(1.0, num_prefilling / num_decode)
        tokens = decode_s * (GAP_FACTOR - 1) * patience / self._prefill_token_s
        return max(MIN_CHUNK, min(most, int(tokens)))


def _blend(old: float | None, new: float) -> float:
    return new if old is None else old + _NEW * (new - old)
