"""How many threads llama.cpp computes with, adapted to what the machine has free.

llama.cpp's threads spin at barriers, so one thread without a core holds all the others up: with as many threads as
cores and one core taken by another process, a step can take thirty times as long, and one thread fewer is the best
setting. The tuner compares settings by measured step times only; the load of other processes decides merely which
comparison is worth its cost.
"""

import math
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

import psutil

SLOWER = 1.3
"""Steps this much slower than expected are a reason to try one thread fewer."""
BETTER = 0.93
"""A setting has to be this much faster to be taken."""
TRIAL_STEPS = 3
TRIAL_SHARE = 0.03
"""Most of the time that the lost trials of one reason may cost."""
_WAIT_S = 1.0
_LOAD_PERIOD_S = 0.25
_KEEP = 0.95  # of a fit's past, at each step
LOOK_EVERY_S = 1.0
"""How often an idle engine looks at the load, so that what a request finds is not the average of a long idle time."""

Reason = Literal["load", "slower", "chance"]


def default_threads() -> int:
    """Physical cores that this process may use, and no more than the container's CPU quota."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    quota = cpu_quota()
    return max(1, min(cores, math.ceil(quota)) if quota else cores)


def cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """The container's limit in cores (cgroup v2, then v1), or None."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit_us = int((root / "cpu/cpu.cfs_quota_us").read_text())
        return limit_us / int((root / "cpu/cpu.cfs_period_us").read_text()) if limit_us > 0 else None
    except (OSError, ValueError):
        return None


class OtherLoad:
    """Cores kept busy by other processes, from the system's and this process's CPU times.

    ``read`` gives the CPU time of all processes and that of this one, in seconds. It takes 0.1 ms, so it is asked
    only when the measurement is to be renewed.
    """

    def __init__(
        self,
        read: Callable[[], tuple[float, float]] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._read = read or _CpuTimes()
        self._clock = clock
        self._last = clock(), *self._read()
        self._cores: float | None = None

    def __call__(self) -> float | None:
        """The average since the last measurement, renewed every quarter of a second; None when unknown.

        It is as recent as the calls are frequent.
        """
        now = self._clock()
        passed = now - self._last[0]
        if passed >= _LOAD_PERIOD_S:
            busy, own = self._read()
            self._cores = max(0.0, (busy - self._last[1]) - (own - self._last[2])) / passed
            self._last = now, busy, own
        return self._cores


class _CpuTimes:
    def __init__(self) -> None:
        self._process = psutil.Process()

    def __call__(self) -> tuple[float, float]:
        times = psutil.cpu_times()
        busy = (
            times.user + times.system + sum(getattr(times, name, 0.0) for name in ("nice", "irq", "softirq", "steal"))
        )
        own = self._process.cpu_times()
        return busy, own.user + own.system


class FixedThreads:
    """A number of threads that the user chose."""

    look_every_s: float | None = None

    def __init__(self, threads: int) -> None:
        self.current = threads

    def rest(self) -> None:
        """Nothing to look at."""

    def resume(self) -> None:
        """Nothing to look at."""

    def choose(self) -> int:
        """Always the same."""
        return self.current

    def observe(self, num_decode: int, num_prefill: int, step_s: float) -> None:
        """Nothing to learn."""


class ThreadTuner:
    """Moves between 1 and ``most`` threads, towards what is faster now.

    A *trial* runs a few steps with another number of threads and compares their time with what the same steps would
    have taken with the current one, whatever their shapes. It has one of three reasons: other processes leave another
    number of cores free (*load*), steps have become *slower* (one thread fewer), or *chance* (one more). A lost trial
    makes its reason wait in proportion to its cost.
    """

    def __init__(
        self,
        most: int,
        other_load: Callable[[], float | None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        *,
        cores: int | None = None,
    ) -> None:
        self.most = most
        self._cores = cores or psutil.cpu_count() or most
        self._other_load = other_load if other_load is not None else OtherLoad()
        self._clock = clock
        self._not_before: dict[Reason, float] = {"load": 0.0, "slower": 0.0, "chance": 0.0}
        self._is_slower = True  # as far as anyone knows: the load may be older than the first step
        self._use(most, StepFit())
        self.look_every_s = LOOK_EVERY_S if most > 1 else None

    def rest(self) -> None:
        """The engine is idle: called every ``look_every_s``, so that ``resume`` sees the latest second or so."""
        self._other_load()

    def resume(self) -> None:
        """The engine was idle and has work again: what others used meanwhile says where to begin."""
        free = self._free_cores()
        self._use(free, self._fit if free == self.current else StepFit())

    def choose(self) -> int:
        """Threads for the next step."""
        return self._trial.threads if self._trial else self.current

    def observe(self, num_decode: int, num_prefill: int, step_s: float) -> None:
        """Learn from a step that ran with ``choose()`` threads, and decide whether to try another number."""
        if self.most == 1:
            return
        rows, free = num_decode + num_prefill, self._free_cores()
        if self._trial:
            self._judge(self._trial, rows, step_s)
            return
        self._fit.observe(rows, step_s)
        self._paces.append(step_s / self._fit.predict(rows))
        if len(self._paces) == TRIAL_STEPS:
            self._consider(free)

    def _use(self, threads: int, fit: "StepFit") -> None:
        self.current = threads
        self._fit = fit
        self._paces: deque[float] = deque(maxlen=TRIAL_STEPS)
        self._trial: _Trial | None = None

    def _free_cores(self) -> int:
        """The number of threads that have a core each, or the current one when the load is unknown."""
        others = self._other_load()
        return self.current if others is None else max(1, min(self.most, round(self._cores - others)))

    def _consider(self, free: int) -> None:
        pace = max(1.0, median(self._paces))
        self._is_slower |= pace > SLOWER
        candidates: dict[Reason, int] = {
            "load": free,
            "slower": max(1, self.current - self._is_slower),
            "chance": min(self.most, self.current + 1),
        }
        for reason, threads in candidates.items():
            if threads != self.current and self._clock() >= self._not_before[reason]:
                self._trial = _Trial(reason, threads, pace)
                return

    def _judge(self, trial: "_Trial", rows: int, step_s: float) -> None:
        trial.fit.observe(rows, step_s)
        trial.steps += 1
        trial.spent_s += step_s
        trial.expected_s += trial.pace * self._fit.predict(rows)
        if trial.steps < TRIAL_STEPS and trial.spent_s < 2 * trial.expected_s:
            return
        self._trial = None
        self._is_slower &= trial.reason != "slower"
        now = self._clock()
        if trial.spent_s < BETTER * trial.expected_s:
            self._use(trial.threads, trial.fit)
            self._not_before = dict.fromkeys(self._not_before, now + _WAIT_S)
        else:
            lost_s = trial.spent_s - trial.expected_s
            self._not_before[trial.reason] = now + max(_WAIT_S, lost_s / TRIAL_SHARE)


class StepFit:
    """A step's time as ``fixed + per_row * rows``: least squares on the time of a row, old steps slowly forgotten."""

    def __init__(self) -> None:
        self._sums = [0.0] * 5

    def observe(self, rows: int, step_s: float) -> None:
        """Learn from one step."""
        x, y = 1 / rows, step_s / rows
        self._sums = [_KEEP * old + new for old, new in zip(self._sums, (1.0, x, x * x, y, x * y), strict=True)]

    def predict(self, rows: int) -> float:
        """Expected seconds, after at least one step was observed. Neither of the two costs is ever negative."""
        n, x, xx, y, xy = self._sums
        spread = n * xx - x * x
        fixed = max(0.0, min((n * xy - x * y) / spread, y / x)) if spread > 1e-9 * n * xx else 0.0
        return fixed + (y - fixed * x) / n * rows


@dataclass
class _Trial:
    reason: Reason
    threads: int
    pace: float  # what steps took lately, as a multiple of what the current setting's fit expects
    fit: StepFit = field(default_factory=StepFit)
    steps: int = 0
    spent_s: float = 0.0
    expected_s: float = 0.0
