"""The processes of a run: how they find each other, wait, and add up."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from ...runtime.errors import ConfigError, TrainingError

Made = TypeVar("Made")
PATIENCE = timedelta(hours=12)
"""How long processes wait for the first one, which may be asking a teacher."""


def begin_together() -> None:
    """Join the other processes, if ``torchrun`` or ``accelerate launch`` started several.

    Raises ConfigError where they are to spread the weights in a way that is not supported."""
    from accelerate import PartialState

    if _wants_fsdp() and os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError("weights are spread by FSDP 2 here: set fsdp_version to 2 in accelerate's configuration")
    # Every process needs the whole model before it is spread: terms look at it, and teachers are no part of it.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)


@contextmanager
def or_a_clear_end() -> Iterator[None]:
    """Raises TrainingError where another process has ended, which is a RuntimeError of the backend."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo/transport" in str(error)):
            raise
        raise TrainingError("another process of this run has ended: what it said is why") from error


def is_first() -> bool:
    """Whether this process writes files and speaks."""
    return not is_distributed() or dist.get_rank() == 0


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def idle_devices() -> int:
    """How many accelerators nobody uses while this process is alone with one."""
    alone_on_one = torch.accelerator.is_available() and not is_distributed()
    return torch.accelerator.device_count() - 1 if alone_on_one else 0


def weights_are_spread() -> bool:
    """Whether each process holds a part of the student only (FSDP)."""
    return is_distributed() and _wants_fsdp()


def _wants_fsdp() -> bool:
    """As ``accelerate launch`` says it."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("true", "1")


def sum_up(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Each value summed over the processes, which must come with the same names. In float64 where the device has it."""
    if not is_distributed() or not values:
        return dict(values)
    names = sorted(values)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    sums = torch.tensor([float(values[name]) for name in names], dtype=dtype, device=device)
    dist.all_reduce(sums)
    found = dict(zip(names, sums.tolist(), strict=True))
    return {name: found[name] for name in values}


def first_alone(make: Callable[[], Made]) -> Made:
    """What ``make`` makes: by the first process with nobody beside it, then by the others, who find it made."""
    if is_first():
        made = make()
        wait_for_all()
    else:
        wait_for_all()
        made = make()
    wait_for_all()
    return made


def wait_for_all() -> None:
    if is_distributed():
        dist.barrier()
