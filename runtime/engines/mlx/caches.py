"""Prompt caches: one cache a layer, of one sequence (as mlx-lm makes them) or of several (its batch caches).

mlx computes a new array where a slice is written to, in place only where nobody else holds the old one, but Python's
name for it then means the new one, for all who share the name. So a copy of a cache has names of its own; it costs
nothing until it grows.
"""

import copy
from collections.abc import Sequence
from typing import Any

Caches = list[Any]
"""One mlx-lm cache for each layer."""


def can_trim(caches: Caches) -> bool:
    """Whether tokens can be taken off the end: not from recurrent states, nor from a window that has moved on."""
    return all(cache.is_trimmable() for cache in caches)


def can_batch(caches: Caches) -> bool:
    """Whether such caches of several sequences can become one."""
    return all(hasattr(type(cache), "merge") for cache in caches)


def clone(caches: Caches) -> Caches:
    """A cache that grows by itself."""
    return [_copied(cache) for cache in caches]


def _copied(value: Any) -> Any:
    """A cache, or what is in one: arrays under new names, lists and caches within with copies of what they hold."""
    import mlx.core as mx

    if isinstance(value, mx.array):
        return value[...]
    if isinstance(value, list | tuple):
        return type(value)(map(_copied, value))
    if not hasattr(value, "__dict__"):
        return value
    one = copy.copy(value)
    for name, part in vars(one).items():
        setattr(one, name, _copied(part))
    return one


def trimmed(caches: Caches, num_tokens: int, keep: int) -> Caches | None:
    """The caches of ``num_tokens`` tokens, cut to the first ``keep`` in place; None where that is impossible."""
    if keep == num_tokens:
        return caches
    if keep <= 0 or not can_trim(caches):
        return None
    for cache in caches:
        cache.trim(num_tokens - keep)
    return caches


def merged(several: Sequence[Caches]) -> Caches:
    """One batch cache of sequences that have a cache each."""
    return [type(layer[0]).merge(list(layer)) for layer in zip(*several, strict=True)]


def extracted(batch: Caches, row: int) -> Caches:
    """The cache of one of a batch's sequences, copied."""
    return [cache.extract(row) for cache in batch]


def arrays(caches: Caches) -> list[Any]:
    """What has to be computed for the caches to be complete."""
    return [cache.state for cache in caches]


def num_bytes(caches: Caches) -> int:
    """Memory that the caches hold."""
    return sum(cache.nbytes for cache in caches)
