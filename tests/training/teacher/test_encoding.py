"""The compact form of distributions: size, exactness, and what damaged bytes do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapster.runtime.errors import TrainingError
from tapster.training.teacher.encoding import Encoding, pack, unpack


def distributions(seed: int, rows: int, vocab: int, size: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """The top of softmaxes of random logits: ids and log-probabilities (rows, size)."""
    logits = np.random.default_rng(seed).normal(size=(rows, vocab)) * spread
    logs = (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )
    ids = np.argsort(-logs, axis=1)[:, :size]
    return ids, np.take_along_axis(logs, ids, axis=1).astype(np.float32)


@given(st.integers(1, 31), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_bits_come_back(width: int, count: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 2**width, (3, count))
    packed = pack(values, width)
    assert packed.shape == (3, (count * width + 7) // 8)
    assert (unpack(packed, count, width) == values).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 600), st.data(), st.floats(0.0, 8.0))
def test_tokens_come_back_and_log_probabilities_nearly(
    seed: int, vocab: int, data: st.DataObject, spread: float
) -> None:
    size = data.draw(st.integers(1, vocab))
    empty = data.draw(st.integers(0, size - 1))
    encoding = Encoding(vocab, size)
    ids, logs = distributions(seed, 4, vocab, size, spread)
    logs[1, size - empty :] = -np.inf
    mixed = np.random.default_rng(seed).permutation(size)  # they may be given in any order
    records = encoding.encode(ids[:, mixed], logs[:, mixed])
    assert records.shape == (4, encoding.record_bytes)
    found_ids, found = encoding.decode(records)
    assert (found[:, 1:] <= found[:, :-1]).all()  # in descending order, what is no entry last
    for row in range(4):
        there = logs[row] > -np.inf
        back = (
            dict(zip(found_ids[row].tolist(), found[row].tolist(), strict=True))
            if there.all()
            else {
                token: value
                for token, value in zip(found_ids[row].tolist(), found[row].tolist(), strict=True)
                if value > -np.inf
            }
        )
        assert set(back) == set(ids[row][there].tolist())
        before = logs[row][there].astype(np.float64)
        after = np.array([back[token] for token in ids[row][there].tolist()])
        assert np.exp(after).sum() == pytest.approx(min(np.exp(before).sum(), 1.0), rel=1e-5)  # the mass is exact
        distance = np.minimum(before.max() - before, 40.0)
        scale = max(6.0, distance.max() / 3)
        step = scale / 254 * np.exp(distance / scale)  # the derivative of the scale, at most
        near = distance < 12
        assert (np.abs(after - before)[near] <= step[near] * 0.75 + 0.02 * (1 - np.exp(-distance.max())) + 1e-4).all()
    assert (encoding.reconstruction_kl(ids, logs, records) < 2e-3).all()


def test_a_llama_3_vocabulary_takes_328_bytes() -> None:
    assert Encoding(128_256, 128).record_bytes == 328
    ids, logs = distributions(0, 8, 128_256, 128, 3.0)
    encoding = Encoding(128_256, 128)
    kl = encoding.reconstruction_kl(ids, logs, encoding.encode(ids, logs))
    assert (kl < 1e-4).all()
    assert (kl > -1e-6).all()


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_what_is_no_distribution_is_refused(fault: float) -> None:
    ids, logs = distributions(0, 2, 50, 5, 1.0)
    logs[1, 2] = fault
    with pytest.raises(ValueError, match="NaN or infinity"):
        Encoding(50, 5).encode(ids, logs)
    with pytest.raises(ValueError, match="no entry"):
        Encoding(50, 5).encode(ids, np.full_like(logs, -np.inf))
    with pytest.raises(ValueError, match="vocabulary"):
        Encoding(50, 5).encode(ids + 50, np.zeros_like(logs))


@pytest.mark.parametrize("place", ["unary", "codes", "floats"])
def test_damaged_bytes_are_noticed(place: str) -> None:
    encoding = Encoding(1000, 8)
    ids, logs = distributions(3, 4, 1000, 8, 2.0)
    records = encoding.encode(ids, logs)
    codes = slice(encoding.record_bytes - 16, encoding.record_bytes - 8)
    where = {"unary": slice(codes.start - 2, codes.start), "codes": codes, "floats": slice(-4, None)}[place]
    records[2, where] = 0xFF
    with pytest.raises(TrainingError, match="damaged"):
        encoding.decode(records)
