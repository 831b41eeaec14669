"""The KL divergence between two models' predictions, from their logits, in float32 and without large temporaries.

With p the reference's probabilities and d the difference of the logits, the logarithms of both normalisers cancel:

    KL(p || q) = log sum(p exp(d)) - sum(p d) = log sum(p exp(d - m)) - sum(p (d - m))

for any m; with m = sum(p d), as well as float32 has it, the last sum is all but 0. So nothing large is subtracted from
anything large, and equal logits give exactly 0.
"""

from dataclasses import dataclass

import numpy as np

_BLOCK_ELEMENTS = 1 << 17
"""Elements worked on at once; with its operands such a block stays in the second-level cache."""
_SAFE_EXPONENT = 30.0
"""Up to here float32 loses nothing: a probability that has vanished cannot be multiplied back into sight."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One number per position: the divergence in nats, whether both models put the same token first, and the
    negative log-likelihoods (nats) of the token that really follows."""

    divergence: np.ndarray
    same_top: np.ndarray
    surprise: np.ndarray
    reference_surprise: np.ndarray


class Reference:
    """The reference's predictions at some positions: ``logits`` of shape (positions, vocabulary), ``targets`` the
    tokens that follow. The logits must stay as they are for as long as this is used; ``scratch`` is taken for the
    probabilities and has to have their shape."""

    def __init__(self, logits: np.ndarray, targets: np.ndarray, scratch: np.ndarray) -> None:
        self.logits = logits
        self.targets = targets
        self.top = logits.argmax(axis=1)
        rows = np.arange(len(logits))
        peak = logits[rows, self.top]
        self._p = scratch
        self._sum = np.empty(len(logits), np.float32)
        ones = np.ones(logits.shape[1], np.float32)
        for block in _blocks(logits.shape):
            p = np.subtract(logits[block], peak[block, None], out=scratch[block])
            np.exp(p, out=p)
            self._sum[block] = np.vecdot(p, ones)
        self.normaliser = peak.astype(np.float64) + np.log(self._sum, dtype=np.float64)
        self.surprise = self.normaliser - logits[rows, targets]

    def compare(self, logits: np.ndarray) -> Comparison:
        """Another model's logits at the same positions; they are overwritten."""
        rows = np.arange(len(logits))
        top, chosen = logits.argmax(axis=1), logits[rows, self.targets].astype(np.float64)
        divergence, shift = np.empty(len(logits)), np.empty(len(logits))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for block in _blocks(logits.shape):
                divergence[block], shift[block] = self._compare_block(block, logits[block])
        surprise = self.normaliser + shift + divergence - chosen
        return Comparison(np.maximum(divergence, 0), top == self.top, surprise, self.surprise)

    def _compare_block(self, block: slice, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Divergences, and by how much the logits are shifted on average."""
        p, total = self._p[block], self._sum[block]
        shift = np.vecdot(p, np.subtract(logits, self.logits[block], out=logits)) / total
        d = np.subtract(logits, shift[:, None], out=logits)
        rest = np.vecdot(p, d) / total
        unsafe = ~(d.max(axis=1) < _SAFE_EXPONENT)
        exact = {row: _exact(self.logits[block][row], d[row]) for row in np.flatnonzero(unsafe)}
        divergence = np.log(np.vecdot(p, np.exp(d, out=d)) / total, dtype=np.float64) - rest
        for row, value in exact.items():
            divergence[row] = value
        return divergence, shift.astype(np.float64) + rest


def _exact(logits: np.ndarray, difference: np.ndarray) -> float:
    """The divergence of one position in float64, from logits and how much others differ from them."""
    log_p = _log_softmax(logits.astype(np.float64))
    log_q = _log_softmax(logits + difference.astype(np.float64))
    return float(np.sum(np.exp(log_p) * (log_p - log_q)))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max()
    return logits - np.log(np.exp(logits).sum())


def _blocks(shape: tuple[int, ...]) -> list[slice]:
    step = max(1, _BLOCK_ELEMENTS // shape[1])
    return [slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]
