"""How many threads llama.cpp computes with, adapted to what the machine has free.

llama.cpp's threads spin at barriers, so one thread without a core holds all the others up: with as many threads as
cores and one core taken by another process, a step can take thirty times as long, and one thread fewer is the best
setting. The tuner compares settings by measured step times only; the load of other processes decides merely when a
comparison is worth its cost.
"""

import math
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psutil

SLOWER = 1.3
"""A step this much slower than usual is a reason to try one thread fewer."""
BETTER = 0.93
"""A setting has to be this much faster to be taken."""
TRIAL_STEPS = 3
TRIAL_SHARE = 0.03
"""Most of the time that trials of a slower setting may cost."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 20.0
_LOAD_PERIOD_S = 0.25
LOOK_EVERY_S = 1.0
"""How often an idle engine looks at the load, so that what a request finds is not the average of a long idle time."""

Key = tuple[int, int]


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
    """Moves between 1 and ``most`` threads, one at a time, towards what is faster now.

    A *trial* runs a few steps with a neighbouring number of threads and compares them with the latest steps of the
    same shape. Fewer threads are tried when steps have become slower; more when other processes leave a core free,
    and now and then, at most TRIAL_SHARE of the time. A trial that was lost doubles the wait for the next.
    """

    def __init__(
        self,
        most: int,
        other_load: Callable[[], float | None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        *,
        cores: int | None = None,
    ) -> None:
        self.most = self.current = most
        self._cores = cores or psutil.cpu_count() or most
        self._other_load = other_load if other_load is not None else OtherLoad()
        self._clock = clock
        self._recent: dict[tuple[int, Key], deque[float]] = {}
        self._usual: dict[tuple[int, Key], float] = {}
        self._trial: _Trial | None = None
        self._wait_s = {-1: _FIRST_WAIT_S, 1: _FIRST_WAIT_S}
        self._not_before = {-1: 0.0, 1: 0.0}
        self._was_crowded = False
        self.look_every_s = LOOK_EVERY_S if most > 1 else None

    def rest(self) -> None:
        """The engine is idle: called every ``look_every_s``, so that ``resume`` sees the latest second or so."""
        self._other_load()

    def resume(self) -> None:
        """The engine was idle and has work again: what others used meanwhile says where to begin."""
        others = self._other_load()
        if others is not None:
            self.current = max(1, min(self.most, round(self._cores - others)))
            self._was_crowded = self.current < self.most
        self._trial = None

    def choose(self) -> int:
        """Threads for the next step."""
        return self._trial.threads if self._trial else self.current

    def observe(self, num_decode: int, num_prefill: int, step_s: float) -> None:
        """Learn from a step that ran with ``choose()`` threads, and decide whether to try another number."""
        if self.most == 1:
            return
        self._other_load()
        key = num_decode, num_prefill.bit_length()
        cost = step_s / (num_decode + num_prefill)
        self._recent.setdefault((self.choose(), key), deque(maxlen=TRIAL_STEPS)).append(cost)
        if self._trial:
            self._judge(self._trial, key, cost, step_s)
        else:
            self._consider(key)

    def _consider(self, key: Key) -> None:
        recent = self._recent[self.current, key]
        if len(recent) < TRIAL_STEPS:
            return
        cost, now = median(recent), self._clock()
        usual = self._usual.get((self.current, key))
        self._usual[self.current, key] = cost if usual is None else min(usual * 1.01, cost)
        is_slower = usual is not None and cost > SLOWER * usual
        is_new = (self.current - 1, key) not in self._recent and not self._usual.keys() - {(self.current, key)}
        if self.current > 1 and (is_slower or is_new) and now >= self._not_before[-1]:
            self._trial = _Trial(self.current - 1, key, cost)
        elif self.current < self.most and (self._is_core_free() or now >= self._not_before[1]):
            self._trial = _Trial(self.current + 1, key, cost)

    def _is_core_free(self) -> bool:
        """Whether other processes have just stopped using a core that one more thread could have."""
        others = self._other_load()
        is_crowded = others is None or self._cores - others < self.current + 0.7
        freed = self._was_crowded and not is_crowded
        self._was_crowded = is_crowded
        return freed

    def _judge(self, trial: "_Trial", key: Key, cost: float, step_s: float) -> None:
        if key != trial.key:
            self._bear_other_shape(trial, key, cost, step_s)
            return
        trial.costs.append(cost)
        trial.lost_s += max(0.0, step_s * (1 - trial.cost_before / cost))
        if len(trial.costs) < TRIAL_STEPS and cost < 2 * trial.cost_before:
            return
        self._settle(trial, trial.threads - self.current)

    def _settle(self, trial: "_Trial", direction: int) -> None:
        self._trial = None
        if median(trial.costs) < BETTER * trial.cost_before:
            self.current = trial.threads
            self._usual.clear()
            self._wait_s = {-1: _FIRST_WAIT_S, 1: _FIRST_WAIT_S}
            self._not_before[-direction] = self._clock() + _FIRST_WAIT_S
            return
        self._usual[self.current, trial.key] = trial.cost_before
        self._lose(trial, direction)

    def _bear_other_shape(self, trial: "_Trial", key: Key, cost: float, step_s: float) -> None:
        """A step that cannot be compared with the trial's first, but costs time all the same."""
        usual = self._usual.get((self.current, key), cost)
        trial.other_shapes += 1
        trial.lost_s += max(0.0, step_s * (1 - usual / cost))
        if cost >= 2 * usual * (1 + 1e-9) or trial.other_shapes > TRIAL_STEPS:
            self._trial = None
            self._lose(trial, trial.threads - self.current)

    def _lose(self, trial: "_Trial", direction: int) -> None:
        """Wait before the next trial in this direction, in proportion to what this one cost."""
        now = self._clock()
        wait_s = max(self._wait_s[direction], trial.lost_s / TRIAL_SHARE)
        self._not_before[direction] = now + wait_s
        self._wait_s[direction] = min(2 * wait_s, _LONGEST_WAIT_S)


class _Trial:
    def __init__(self, threads: int, key: Key, cost_before: float) -> None:
        self.threads = threads
        self.key = key
        self.cost_before = cost_before
        self.costs: list[float] = []
        self.lost_s = 0.0
        self.other_shapes = 0
