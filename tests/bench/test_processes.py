"""Processes that end when they should, whatever happens."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tapster.runtime.engines.local.threads import default_threads
from tapster.runtime.errors import TargetError
from tapster.server.bench.contention import busy_core, compare, is_hopeless, measure_contention, thread_settings
from tapster.server.bench.options import BenchOptions
from tapster.server.bench.own_server import free_port, own_server
from tapster.server.bench.process import child, stop
from tapster.server.bench.prompts import prompts
from tapster.server.bench.scenarios import LOADS, Load


async def test_a_server_that_ends_at_once_says_why() -> None:
    script = "import sys; print('loading'); sys.exit('error: no such model: nonesuch\\n')"
    with (
        own_server([sys.executable, "-c", script], free_port()) as started,
        pytest.raises(TargetError, match="the server ended with status 1: error: no such model: nonesuch"),
    ):
        await started.until_ok("/v1/models", timeout_s=60)


async def test_a_server_that_never_answers_is_given_up() -> None:
    with own_server([sys.executable, "-c", "import time; time.sleep(60)"], free_port()) as started:
        with pytest.raises(TargetError, match=r"did not answer on /ready within 0.2 s"):
            await started.until_ok("/ready", timeout_s=0.2)
        pid = started.process.pid
    assert not psutil.pid_exists(pid)


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    script = f"import signal, time; {deaf}; print(flush=True); time.sleep(60)"
    with child([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        stop(process, timeout_s=0.2)
        assert process.returncode == -signal.SIGKILL


def test_a_busy_core_is_busy_only_for_its_time() -> None:
    with busy_core(at_most_s=0.5) as process:
        usage = psutil.Process(process.pid)
        assert process.wait(60) == 0
        with pytest.raises(psutil.NoSuchProcess):
            usage.cpu_times()


def test_thread_settings() -> None:
    assert thread_settings(1) == {"adaptive": (), "--threads 1": ("--threads", "1")}
    assert list(thread_settings(2)) == ["adaptive", "--threads 1", "--threads 2"]
    assert list(thread_settings(8)) == ["adaptive", "--threads 1", "--threads 7", "--threads 8"]


def test_contention_compares_with_the_best_fixed_setting() -> None:
    row = compare("single", "busy", {"adaptive": [2.2, 1.8], "--threads 1": [1.6, 1.6], "--threads 2": [9.0, 0.1]})
    assert (row.best_fixed, row.ratio) == ("--threads 1", pytest.approx(1.25))


def test_a_hopeless_setting_is_measured_once_and_the_adaptive_one_always() -> None:
    walls_s = {"adaptive": [9.0], "--threads 1": [1.6], "--threads 2": [9.0], "--threads 3": []}
    assert [name for name in walls_s if is_hopeless(walls_s, name)] == ["--threads 2"]


async def test_contention_measures_every_setting_in_both_states(
    demo_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tapster.server.bench.target.WARM_UP_TOKENS", (8, 2))
    monkeypatch.setitem(LOADS, "single", lambda seed: Load(prompts(1, 8, seed), 3))
    monkeypatch.setitem(LOADS, "concurrent", lambda seed: Load(prompts(2, 8, seed), 3))
    children = set(psutil.Process().children())
    rows = await measure_contention(BenchOptions(what=str(demo_model), repeat=1), lambda text: None)
    assert [(row.scenario, row.state) for row in rows] == [
        ("single", "quiet"),
        ("concurrent", "quiet"),
        ("single", "busy"),
        ("concurrent", "busy"),
    ]
    for row in rows:
        assert list(row.wall_s) == list(thread_settings(default_threads()))
        assert row.ratio == pytest.approx(row.wall_s["adaptive"].median / row.wall_s[row.best_fixed].median)
    assert not set(psutil.Process().children()) - children
