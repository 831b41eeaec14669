"""Numbers that change with the steps: a constant, or points joined by straight lines (see ``recipe/schema.py``)."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import isfinite

from ...runtime.errors import ConfigError

Schedule = float | Sequence[tuple[int, float]]


def value_at(schedule: Schedule, step: int) -> float:
    """The value after ``step`` optimiser steps. Before the first and after the last point the value stays."""
    if isinstance(schedule, int | float):
        return float(schedule)
    idx = bisect_right(schedule, step, key=lambda point: point[0])
    if idx == 0:
        return float(schedule[0][1])
    left, before = schedule[idx - 1]
    if idx == len(schedule):
        return float(before)
    right, after = schedule[idx]
    return before + (after - before) * (step - left) / (right - left)


def values_of(schedule: Schedule) -> list[float]:
    """At its points."""
    return [float(schedule)] if isinstance(schedule, int | float) else [float(value) for _, value in schedule]


def is_constant(schedule: Schedule) -> bool:
    return len(set(values_of(schedule))) == 1


def least(schedule: Schedule) -> float:
    """The smallest value that it ever has."""
    return min(values_of(schedule))


def check_schedule(schedule: Schedule, total_steps: int | None = None) -> None:
    """Raise ConfigError where ``schedule`` makes no sense in a stage of ``total_steps`` (None: not known)."""
    if isinstance(schedule, int | float):
        _check_value(schedule)
        return
    if not schedule:
        raise ConfigError("a schedule needs at least one point: give [[step, value], …] or a number")
    for _, value in schedule:
        _check_value(value)
    steps = [step for step, _ in schedule]
    if steps[0] < 0:
        raise ConfigError(f"a schedule begins at step {steps[0]}: steps count from 0")
    for earlier, later in pairwise(steps):
        if later <= earlier:
            raise ConfigError(
                f"a schedule goes from step {earlier} to step {later}: give its points in ascending order"
            )
    if total_steps is not None and steps[-1] > total_steps:
        raise ConfigError(f"a schedule's point at step {steps[-1]} lies past the stage's last step, {total_steps}")


def check_together(schedules: Sequence[Schedule], total_steps: int) -> None:
    """Raise ConfigError where all ``schedules``, the weights of a stage of ``total_steps``, are 0 in one of its steps.

    The step would teach nothing, and decay weights. Weights of at least 0 are all 0 at the first step or at a point
    of one of them, if they ever are.
    """
    points = (step for schedule in schedules if not isinstance(schedule, int | float) for step, _ in schedule)
    for step in sorted({0, *points}):
        if step < total_steps and not any(value_at(schedule, step) for schedule in schedules):
            raise ConfigError(f"all weights are 0 at step {step}, which would teach nothing: leave one above 0")


def _check_value(value: float) -> None:
    if not isfinite(value):
        raise ConfigError(f"a schedule's value is {value}: give a finite number")
