"""Which rows an optimiser step reads: the plan of a whole stage, the same on every process and after every resume."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from ...runtime.errors import ConfigError

OrderOfEpoch = Callable[[int], np.ndarray]
"""The rows of an epoch, in order."""


def total_steps(num_rows: int, batch_size: int, steps: int | None, epochs: float | None) -> int:
    """Of a stage. The last batch of an epoch is filled up with the first rows of the next."""
    if steps is not None:
        return steps
    assert epochs is not None, "a stage has steps or epochs"
    return max(1, math.ceil(epochs * num_rows / batch_size))


def plan_rows(num_steps: int, batch_size: int, order: OrderOfEpoch) -> np.ndarray:
    """(steps, batch_size) row numbers: epoch after epoch, without a gap."""
    wanted, parts, have, epoch = num_steps * batch_size, [], 0, 0
    while have < wanted:
        part = np.asarray(order(epoch), dtype=np.int64)
        parts.append(part)
        have += len(part)
        epoch += 1
    return np.concatenate(parts)[:wanted].reshape(num_steps, batch_size)


def sort_within_steps(plan: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Rows of similar length side by side, so that little of a micro-batch is padding. What a step sums up over is the
    same; so is the gradient, but for rounding."""
    return np.take_along_axis(plan, np.argsort(-lengths[plan], axis=1, kind="stable"), axis=1)


def micro_batch_size(batch_size: int, wanted: int, num_processes: int, group_size: int = 1) -> int:
    """The largest size up to ``wanted`` that divides a step evenly among processes and does not cut groups."""
    if batch_size % (num_processes * group_size):
        raise ConfigError(
            f"a batch_size of {batch_size} cannot be shared evenly by {num_processes} processes"
            + (f" with {group_size} ranked answers to a question together" if group_size > 1 else "")
            + f"; use a multiple of {num_processes * group_size}"
        )
    share = batch_size // num_processes
    sizes = [size for size in range(group_size, share + 1, group_size) if share % size == 0]
    return max((size for size in sizes if size <= wanted), default=min(sizes))


def group_size(groups: Sequence[float]) -> int:
    """How many consecutive rows belong together. Raises ConfigError unless all groups have as many."""
    starts = np.flatnonzero(np.diff(np.asarray(groups), prepend=np.nan) != 0)
    sizes = np.diff(np.append(starts, len(groups)))
    if len(set(sizes.tolist())) != 1:
        raise ConfigError(f"ranked answers come in groups of one size; here are {sorted(set(sizes.tolist()))}")
    return int(sizes[0])


class PlannedBatches(Sampler[list[int]]):
    """The micro-batches of one process, step after step. They are dealt to the processes in turn."""

    def __init__(self, plan: np.ndarray, size: int, process: int = 0, num_processes: int = 1) -> None:
        self._batches = plan.reshape(-1, size)[process::num_processes]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self._batches)
