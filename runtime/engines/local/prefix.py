"""How much two token sequences have in common."""

from collections.abc import Sequence


def common_prefix(a: Sequence[int], a_start: int, b: Sequence[int], b_start: int, limit: int) -> int:
    """How many tokens ``a[a_start:]`` and ``b[b_start:]`` have in common, at most ``limit``.

    Halves on slices, which compare in C: a long equal prefix costs a comparison or two, not a Python loop.
    """
    limit = min(limit, len(a) - a_start, len(b) - b_start)
    low = 0
    size = limit
    while low < limit:
        size = min(size, limit - low)
        if a[a_start + low : a_start + low + size] == b[b_start + low : b_start + low + size]:
            low += size
        elif size == 1:
            break
        else:
            size = (size + 1) // 2
    return low
