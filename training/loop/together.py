"""Sums over all processes."""

from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist

PATIENCE = timedelta(hours=12)
"""How long processes wait for the first one, which may be asking a teacher."""


def begin_together() -> None:
    """Join the other processes, if ``torchrun`` or ``accelerate launch`` started several."""
    from accelerate import PartialState

    PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)


def is_first() -> bool:
    """Whether this process writes files and speaks."""
    return not is_distributed() or dist.get_rank() == 0


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_up(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Each value summed over the processes, which must come with the same names. In float64 where the device has it."""
    if not is_distributed() or not values:
        return dict(values)
    names = sorted(values)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    sums = torch.tensor([float(values[name]) for name in names], dtype=dtype, device=device)
    dist.all_reduce(sums)
    return dict(zip(names, sums.tolist(), strict=True))


def wait_for_all() -> None:
    if is_distributed():
        dist.barrier()
