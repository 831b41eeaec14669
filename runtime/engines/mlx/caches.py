"""Prompt caches: one cache a layer, of one sequence (as mlx-lm makes them) or of several (its batch caches).

mlx's arrays do not change: writing into a slice makes a new array, in place only where nobody else holds the old one.
So copies of a cache cost nothing until one of them grows.
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
    copies = [copy.copy(cache) for cache in caches]
    for one in copies:
        for name, value in vars(one).items():
            if isinstance(value, list):  # states that are exchanged in place
                setattr(one, name, copy.deepcopy(value) if _is_nested(value) else list(value))
    return copies


def _is_nested(values: list[Any]) -> bool:
    return any(hasattr(value, "update_and_fetch") or isinstance(value, list) for value in values)


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
