"""A few tokens of a distribution and their log-probabilities in a record of fixed size.

* **Which tokens**: k of V ids in ascending order, as Elias and Fano store a monotone sequence: the low l bits of each
  id as they are, the rest in unary (bit ``(id >> l) + j`` is set for the j-th id). That is about k (2 + log2(V / k))
  bits, where k ids of ceil(log2 V) bits each also store an order that the log-probabilities tell anyway.
* **How likely**: one byte a token, its distance to the most likely one on a scale that is fine where the probability
  is: d = -c log(1 - b (1 - exp(-D / c))), with D the largest distance and b from 0 to 1 in 254 steps. 255 is no entry.
* **The mass** that all of them have together, as a float, to which the decoded ones are scaled: what is missing of one
  is exact.

At V = 128256 and k = 128 this is 192 + 128 + 8 = 328 bytes.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...runtime.errors import TrainingError

_STEPS = 254
_EMPTY = 255
_SCALE = 6.0
"""c: an error in a log-probability costs p·error²/2 in KL, which the scale spreads over the bytes."""
_FARTHEST = 40.0
"""Nats: what is less likely than the most likely token by more is stored as if it were so much."""
_FLOATS = 2


def pack(values: np.ndarray, width: int) -> np.ndarray:
    """(n, k) numbers below 2**width to (n, ceil(k·width / 8)) bytes, most significant bit first."""
    shifts = np.arange(width - 1, -1, -1, dtype=np.uint32)
    bits = (values.astype(np.uint32)[..., None] >> shifts) & 1
    return np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=1)


def unpack(data: np.ndarray, count: int, width: int) -> np.ndarray:
    """What ``pack`` packed: (n, count) int64."""
    if not width:
        return np.zeros((len(data), count), np.int64)
    bits = np.unpackbits(data, axis=1, count=count * width).reshape(len(data), count, width)
    padded = np.zeros((len(data), count, 32), np.uint8)
    padded[..., 32 - width :] = bits
    return np.packbits(padded, axis=-1).view(">u4")[..., 0].astype(np.int64)


@dataclass(frozen=True)
class Encoding:
    """Records of ``size`` tokens at most, of a vocabulary of ``vocab_size``."""

    vocab_size: int
    size: int

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.vocab_size:
            raise ValueError(f"{self.size} of {self.vocab_size} tokens")

    @cached_property
    def low_bits(self) -> int:
        """Of each id; the number that makes records smallest."""
        return min(range(32), key=lambda bits: self._low_bytes(bits) + self._unary_bytes(bits))

    @cached_property
    def record_bytes(self) -> int:
        return self._low_bytes(self.low_bits) + self._unary_bytes(self.low_bits) + self.size + 4 * _FLOATS

    def _low_bytes(self, low_bits: int) -> int:
        return (self.size * low_bits + 7) // 8

    def _unary_bytes(self, low_bits: int) -> int:
        return (((self.vocab_size - 1) >> low_bits) + self.size + 7) // 8

    def encode(self, ids: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
        """(n, size) ids and log-probabilities, in any order, to (n, record_bytes); entries of -inf are left out.

        ValueError for a NaN, a row without entries, and ids that the vocabulary does not have.
        """
        is_empty = log_probs == -np.inf
        if np.isnan(log_probs).any() or (log_probs == np.inf).any() or is_empty.all(axis=1).any():
            raise ValueError("a distribution has NaN or infinity, or no entry")
        if not ((ids >= 0) & (ids < self.vocab_size) | is_empty).all():
            raise ValueError(f"a token id is not within the vocabulary of {self.vocab_size}")
        ids = np.where(is_empty, self.vocab_size - 1, ids)
        order = np.lexsort((is_empty, ids), axis=1)
        ids, values = (np.take_along_axis(array, order, axis=1) for array in (ids, log_probs.astype(np.float64)))
        low = pack(ids & ((1 << self.low_bits) - 1), self.low_bits)
        codes, floats = _codes(values)
        return np.concatenate([low, self._unary(ids), codes, floats.view(np.uint8)], axis=1)

    def _unary(self, ids: np.ndarray) -> np.ndarray:
        bits = np.zeros((len(ids), 8 * self._unary_bytes(self.low_bits)), np.uint8)
        np.put_along_axis(bits, (ids >> self.low_bits) + np.arange(self.size), 1, axis=1)
        return np.packbits(bits, axis=1)

    def decode(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, size) int64 ids and float32 log-probabilities in descending order; entries that were left out come last
        and are -inf. TrainingError for bytes that no distribution was encoded to."""
        first = self._low_bytes(self.low_bits)
        second = first + self._unary_bytes(self.low_bits)
        low = unpack(records[:, :first], self.size, self.low_bits)
        ones = np.unpackbits(records[:, first:second], axis=1)
        if not (ones.sum(axis=1, dtype=np.int64) == self.size).all():
            raise _damaged()
        high = np.nonzero(ones)[1].reshape(len(records), self.size) - np.arange(self.size)
        codes = records[:, second : second + self.size]
        floats = np.ascontiguousarray(records[:, second + self.size :]).view("<f4")
        log_probs = _log_probs(codes, floats)
        order = np.argsort(codes, axis=1, kind="stable")
        ids = np.take_along_axis((high << self.low_bits) | low, order, axis=1)
        return np.minimum(ids, self.vocab_size - 1), np.take_along_axis(log_probs, order, axis=1)

    def reconstruction_kl(self, ids: np.ndarray, log_probs: np.ndarray, records: np.ndarray) -> np.ndarray:
        """(n,) sum of p (log p - log p') over the stored entries, p' being what the records give back. All the rest is
        one bucket, whose probability is exact."""
        found_ids, found = self.decode(records)
        before, after = (_by_id(one, other) for one, other in ((ids, log_probs), (found_ids, found)))
        with np.errstate(invalid="ignore"):
            terms = np.where(before > -np.inf, np.exp(before) * (before - after), 0.0)
        return terms.sum(axis=1)


def _by_id(ids: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
    """Log-probabilities in the order of ids, then, for ids that occur twice, of themselves; empty entries last."""
    keys = np.where(log_probs > -np.inf, ids, np.iinfo(np.int64).max)
    order = np.lexsort((log_probs, keys), axis=1)
    return np.take_along_axis(log_probs, order, axis=1).astype(np.float64)


def _codes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bytes (n, k) and floats (n, 2): the largest distance, and the log of the mass."""
    top = values.max(axis=1, keepdims=True)
    shares = np.exp(values - top)
    mass = np.minimum(top[:, 0] + np.log(shares.sum(axis=1)), 0.0)
    is_empty = values == -np.inf
    distance = np.minimum(np.where(is_empty, 0.0, top - np.where(is_empty, top, values)), _FARTHEST)
    largest = distance.max(axis=1).astype("<f4")
    scale, reach = _scale(largest)
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(reach > 0, (1.0 - np.exp(-distance / scale)) / reach, 0.0)
    codes = np.where(is_empty, _EMPTY, np.clip(np.rint(part * _STEPS), 0, _STEPS)).astype(np.uint8)
    return codes, np.stack([largest, mass.astype("<f4")], axis=1)


def _log_probs(codes: np.ndarray, floats: np.ndarray) -> np.ndarray:
    largest, mass = floats[:, 0], floats[:, 1]
    is_empty = codes == _EMPTY
    is_sound = np.isfinite(floats).all(axis=1) & (largest >= 0) & (mass <= 0) & ~is_empty.all(axis=1)
    if not is_sound.all():
        raise _damaged()
    scale, reach = _scale(largest)
    distance = -scale * np.log1p(np.minimum(codes, _STEPS) / -_STEPS * reach)
    shares = np.where(is_empty, 0.0, np.exp(-distance))
    log_probs = mass[:, None] - distance - np.log(shares.sum(axis=1, keepdims=True))
    return np.where(is_empty, -np.inf, log_probs).astype(np.float32)


def _scale(largest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """c and 1 - exp(-D / c), both (n, 1). Long tails get a wider scale, or steps would be wide at their ends."""
    distance = largest.astype(np.float64)[:, None]
    scale = np.maximum(_SCALE, distance / 3.0)
    return scale, -np.expm1(-distance / scale)


def _damaged() -> TrainingError:
    return TrainingError("stored distributions are damaged (NaN, or bytes that make no sense)")
