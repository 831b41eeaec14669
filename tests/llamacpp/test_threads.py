"""The thread tuner on simulated machines, and where its first number comes from."""

from pathlib import Path
from random import Random

import pytest

from tapster.runtime.engines.local.threads import OtherLoad, StepFit, ThreadTuner, cpu_quota


class Machine:
    """Cores, some of them busy with something else. Steps cost as measured: a missing core costs many times over."""

    def __init__(self, cores: int, *, tells_load: bool, seed: int = 0) -> None:
        self.cores = cores
        self.busy = 0
        self.now = self.best_s = 0.0
        self.random = Random(seed)
        self._tells_load = tells_load
        self.tuner = ThreadTuner(cores, self.load, lambda: self.now, cores=cores)

    def load(self) -> float | None:
        return float(self.busy) if self._tells_load else None

    def step_s(self, threads: int, rows: int) -> float:
        alone = (0.004 + 0.008 * rows) / min(threads, self.cores) ** 0.8
        return alone * (6 if threads > self.cores - self.busy else 1)

    def run(self, seconds: float, *shapes: int) -> float:
        """Steps of 8 rows, or of the given shapes at random. Time taken as a multiple of the best setting's."""
        began, best_before_s = self.now, self.best_s
        while self.now < began + seconds:
            rows = self.random.choice(shapes or (8,))
            step = self.step_s(self.tuner.choose(), rows)
            self.now += step
            self.tuner.observe(rows, 0, step)
            self.best_s += min(self.step_s(threads, rows) for threads in range(1, self.cores + 1))
        return (self.now - began) / (self.best_s - best_before_s)


@pytest.mark.parametrize("tells_load", [True, False])
@pytest.mark.parametrize("cores", [2, 4, 8])
def test_stays_near_the_best_setting_as_load_comes_and_goes(cores: int, tells_load: bool) -> None:
    machine = Machine(cores, tells_load=tells_load)
    assert machine.run(20) < 1.05
    machine.busy = 1
    machine.run(10)
    assert machine.run(20) < 1.2
    assert machine.tuner.current == cores - 1
    machine.busy = 0
    machine.run(10)
    assert machine.run(20) < 1.2
    assert machine.tuner.current == cores


def test_does_not_hunt_when_nothing_changes() -> None:
    machine = Machine(2, tells_load=False)
    machine.run(10)
    used = set()
    for _ in range(500):
        used.add(machine.tuner.choose())
        machine.tuner.observe(8, 0, machine.step_s(2, 8))
    assert used == {2}


def test_begins_with_what_others_left_free_while_it_was_idle() -> None:
    machine = Machine(4, tells_load=True)
    machine.busy = 2
    machine.tuner.resume()
    assert machine.tuner.choose() == 2


@pytest.mark.parametrize(("busy_before", "busy_now"), [(0, 2), (2, 0)])
def test_sees_load_that_changed_just_before_a_request(busy_before: int, busy_now: int) -> None:
    now = busy_s = 0.0
    tuner = ThreadTuner(4, OtherLoad(lambda: (busy_s, 0.0), lambda: now), lambda: now, cores=4)
    for busy, seconds in ((busy_before, 600), (busy_now, 2)):
        for _ in range(seconds):
            now += 1.0
            busy_s += busy
            tuner.rest()
    tuner.resume()
    assert tuner.choose() == 4 - busy_now


def test_steps_of_other_shapes_do_not_mislead() -> None:
    machine = Machine(2, tells_load=False)
    for rows in (1, 2, 4, 8) * 20:
        machine.run(0.05, rows)
    assert machine.tuner.current == 2


@pytest.mark.parametrize(("cores", "tells_load", "factor"), [(2, True, 1.12), (8, True, 1.25), (2, False, 1.35)])
@pytest.mark.parametrize("load_lasts_s", [240, 60, 20])
@pytest.mark.parametrize("num_shapes", [1, 5, 16])
def test_costs_little_more_than_the_best_setting_of_every_step(
    cores: int, tells_load: bool, factor: float, load_lasts_s: int, num_shapes: int
) -> None:
    for seed in range(6):
        machine = Machine(cores, tells_load=tells_load, seed=seed)
        shapes = [machine.random.randint(1, 64) for _ in range(num_shapes)]
        for _ in range(240 // load_lasts_s):
            machine.busy = machine.random.randrange(cores)
            machine.run(load_lasts_s, *shapes)
        assert machine.now < factor * machine.best_s, f"seed {seed}"


@pytest.mark.parametrize(("busy", "told"), [(0, 1.0), (1, 0.0)])
def test_a_wrong_figure_of_the_load_costs_little(busy: int, told: float) -> None:
    machine = Machine(4, tells_load=False)
    machine.tuner = ThreadTuner(4, lambda: told, lambda: machine.now, cores=4)
    machine.busy = busy
    assert machine.run(60, 1, 2, 8, 40) < 1.2


def test_a_fit_knows_shapes_it_has_not_seen() -> None:
    fit = StepFit()
    fit.observe(2, 14.0)
    assert fit.predict(4) == pytest.approx(28)
    fit.observe(8, 26.0)
    assert fit.predict(32) == pytest.approx(10 + 2 * 32)


@pytest.mark.parametrize(("text", "cores"), [("max 100000", None), ("150000 100000", 1.5), ("nonsense", None)])
def test_reads_the_containers_quota(tmp_path: Path, text: str, cores: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert cpu_quota(tmp_path) == cores


def test_reads_the_older_kind_of_quota(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("200000")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")
    assert cpu_quota(tmp_path) == 2
