"""A vLLM of our own: started, waited for, stopped, and never left behind. The program is a small one of the tests."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import fake_vllm
import psutil
import pytest
from fake_server import ByteTokenizer

from tapster.runtime.engines.vllm.ask import ask
from tapster.runtime.engines.vllm.config import VllmConfig
from tapster.runtime.engines.vllm.engine import VllmEngine
from tapster.runtime.engines.vllm.supervisor import Supervisor, vllm_command
from tapster.runtime.errors import ConfigError, EngineError, ModelError
from tapster.runtime.profile import ModelProfile

CHECKPOINT = Path("/models/tiny")


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``vllm`` on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    path = folder / "vllm"
    path.write_text(f"#!{sys.executable}\n{Path(fake_vllm.__file__).read_text()}")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("TAPSTER_VLLM_PYTHON", raising=False)
    return path


def config(*arguments: str, **settings: Any) -> VllmConfig:
    return VllmConfig(arguments=arguments, stop_grace_s=1, **settings)


@contextlib.contextmanager
def started(*arguments: str, **settings: Any) -> Iterator[tuple[Supervisor, VllmConfig, list[str]]]:
    reasons: list[str] = []
    supervisor = Supervisor(CHECKPOINT, config(*arguments, **settings), on_exit=reasons.append)
    client = supervisor.start()
    try:
        yield supervisor, client, reasons
    finally:
        supervisor.stop()


_OTHERS: set[psutil.Process] = set()
"""Children that earlier tests of this process have left."""


@pytest.fixture(autouse=True)
def others() -> None:
    _OTHERS.clear()
    _OTHERS.update(psutil.Process().children(recursive=True))


def descendants() -> list[psutil.Process]:
    """What runs below this process, of what a supervisor starts."""
    found = [one for one in psutil.Process().children(recursive=True) if one not in _OTHERS]
    return [each for each in found if each.status() != psutil.STATUS_ZOMBIE]


def wait_until(condition: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def test_it_starts_answers_and_stops() -> None:
    with started("--tensor-parallel-size", "8", context=32) as (_, client, reasons):
        status, body = asyncio.run(ask(client.addresses[0], "/v1/models", client))
        arguments = json.loads(body)["data"][0]["arguments"]
        assert status == 200
        assert arguments[1:3] == ["serve", str(CHECKPOINT)]
        assert arguments[-2:] == ["--tensor-parallel-size", "8"]
        assert arguments[arguments.index("--max-model-len") + 1] == "32"
        assert client.addresses[0].host == "127.0.0.1"
        assert not any(client.api_key in each for each in arguments)
        status, _ = asyncio.run(ask(client.addresses[0], "/v1/models", config()))
        assert status == 401
    assert descendants() == []
    assert reasons == []


def test_what_it_said_last_is_in_the_error() -> None:
    with pytest.raises(ModelError) as caught, started("--die"):
        pass
    message = str(caught.value)
    assert "ended with status 3 instead of starting: ValueError: no such architecture" in message
    assert "last words" in message
    assert "\n" not in message
    assert descendants() == []


def test_it_is_not_waited_for_for_ever() -> None:
    with pytest.raises(ModelError, match=r"not ready after .*loading"), started("--never", vllm_start_timeout_s=1.0):
        pass
    assert descendants() == []


@pytest.mark.parametrize("arguments", [("--deaf",), ("--worker",), ("--deaf", "--worker")])
def test_all_of_it_ends_though_it_does_not_listen(arguments: tuple[str, ...]) -> None:
    with started(*arguments):
        assert descendants()
    assert descendants() == []


def test_a_crash_is_told_and_its_workers_end() -> None:
    with started("--worker") as (_, client, reasons):
        with contextlib.suppress(Exception):
            asyncio.run(ask(client.addresses[0], "/crash", client))
        wait_until(lambda: reasons)
        assert "vLLM ended with status 9 while it was serving: RuntimeError: out of memory" in reasons[0]
        wait_until(lambda: not descendants())


async def test_a_crash_fails_the_engine_though_nobody_has_asked_for_anything() -> None:
    profile = cast(ModelProfile, SimpleNamespace(path=CHECKPOINT))
    engine = VllmEngine(profile, config(), tokenizer=ByteTokenizer())
    failures: list[EngineError] = []
    try:
        engine.on_failure(failures.append)
        for process in descendants():
            if "serve" in process.cmdline() and "-I" not in process.cmdline():
                process.send_signal(signal.SIGKILL)
        async with asyncio.timeout(10):
            while not failures:
                await asyncio.sleep(0.01)
        assert engine.failed is failures[0]
        engine.on_failure(failures.append)
        await asyncio.sleep(0.1)
        assert failures == [engine.failed] * 2
        with pytest.raises(EngineError, match="while it was serving"):
            engine.generate([1], cast(Any, None))
    finally:
        engine.close()


def test_it_does_not_outlive_a_tapster_that_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import sys, threading, time\n"
        "from pathlib import Path\n"
        "from tapster.runtime.engines.vllm.config import VllmConfig\n"
        "from tapster.runtime.engines.vllm.supervisor import Supervisor\n"
        f"config = VllmConfig(arguments=('--deaf', '--pids', {str(pids)!r}), stop_grace_s=0.5)\n"
        "supervisor = Supervisor(Path('m'), config, on_exit=print)\n"
        "starting = threading.Thread(target=supervisor.start)\n"  # a thread that ends must not end vLLM
        "starting.start(); starting.join(); time.sleep(0.3)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as tapster:
        assert tapster.stdout is not None
        assert tapster.stdout.readline() == b"ready\n"
        pid = int(pids.read_text())
        assert psutil.pid_exists(pid)
        tapster.kill()
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_there_is_no_vllm(program: Path) -> None:
    program.unlink()
    with pytest.raises(ConfigError, match="--vllm-python"):
        vllm_command(None)


def test_the_interpreter_that_was_named_has_none() -> None:
    with pytest.raises(ConfigError, match="vLLM is not installed there"):
        vllm_command(sys.executable)
    with pytest.raises(ConfigError, match="no such program"):
        vllm_command("/no/such/python")
