"""Memory for a cache table: how much there may be, and some that costs nothing before it is used."""

import mmap
import sys

import numpy as np
import psutil

from ...errors import ModelError

KEPT_SLOTS = 8
"""Slots beyond those that run, in which finished sequences wait for their next turn."""
_SHARE = 0.8


def fit_slots(wanted: int, slot_bytes: int, context_length: int, free_bytes: int | None = None) -> int:
    """How many of ``wanted`` running slots, and some to keep, fit into memory if all are full. At least one must."""
    free = psutil.virtual_memory().available if free_bytes is None else free_bytes
    if slot_bytes > free:
        raise ModelError(
            f"a cache of {context_length} tokens takes {slot_bytes / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are "
            "free: lower --context"
        )
    return max(1, min(wanted + KEPT_SLOTS, int(_SHARE * free / max(1, slot_bytes))))


def lazy_zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros of which only touched pages of 4 KiB take memory.

    numpy asks for huge pages, with which one short sequence would fill 2 MiB for each head of each layer.
    """
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    if sys.platform == "win32":
        return np.zeros(shape, dtype)
    try:
        pages = mmap.mmap(-1, max(1, num_bytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, ValueError) as error:
        raise ModelError(f"no memory for a cache of {num_bytes / 2**30:.1f} GiB: lower --context") from error
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, np.uint8)[:num_bytes].view(dtype).reshape(shape)
