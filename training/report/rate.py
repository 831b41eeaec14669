"""How fast this machine multiplies matrices, in the type that training computes in."""

from __future__ import annotations

import time

_SIZE = {"cpu": 768, "cuda": 4096, "mps": 2048}
_SECONDS = 0.2


def matmul_flop_s(dtype: str) -> float:
    """Floating-point operations a second of one process here; the best of some products over 0.2 s."""
    import torch

    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    size = _SIZE.get(device.type, 2048)
    left = torch.ones(size, size, dtype=getattr(torch, dtype), device=device)
    fastest, ends = float("inf"), time.perf_counter() + _SECONDS
    for attempt in range(1000):
        started = time.perf_counter()
        (left @ left)[0, 0].item()  # waits for the device
        if attempt:  # the first one warms up
            fastest = min(fastest, time.perf_counter() - started)
        if attempt and time.perf_counter() > ends:
            break
    return 2 * size**3 / fastest
