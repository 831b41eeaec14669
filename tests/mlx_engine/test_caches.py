"""Copies of prompt caches: what is written through one must not be seen through another."""

import mlx.core as mx
import pytest
from mlx_lm.models.cache import KVCache, RotatingKVCache

from tapster.runtime.engines.mlx import caches


def filled(kind: str, num_tokens: int) -> KVCache | RotatingKVCache:
    cache = KVCache() if kind == "plain" else RotatingKVCache(max_size=64)
    values = mx.broadcast_to(mx.arange(num_tokens, dtype=mx.float32)[None, None, :, None], (1, 1, num_tokens, 4))
    cache.update_and_fetch(values, values)
    return cache


@pytest.mark.parametrize("kind", ["plain", "window"])
def test_a_copy_that_is_cut_and_goes_on_leaves_the_first_as_it_was(kind: str) -> None:
    kept = [filled(kind, 8)]
    other = caches.trimmed(caches.clone(kept), 8, 3)
    assert other is not None
    new = mx.full((1, 1, 4, 4), 99.0)
    keys, _ = other[0].update_and_fetch(new, new)
    assert keys[0, 0, :7, 0].tolist() == [0, 1, 2, 99, 99, 99, 99]
    assert kept[0].keys is not None
    assert kept[0].keys[0, 0, :8, 0].tolist() == list(range(8))
    assert kept[0].offset == 8
