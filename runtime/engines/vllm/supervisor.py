"""Starts ``vllm serve`` on a checkpoint, waits until it answers, and sees to it that it ends when tapster does."""

import importlib.util
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ...errors import ConfigError, ModelError
from . import guard
from .address import Address
from .ask import check_health, run_blocking
from .config import VllmConfig
from .exchange import LostConnection

log = logging.getLogger(__name__)

# What the program ``vllm`` does. Its command line asks for the version of a distribution named vllm, which the builds
# for CPUs do not register under that name; elsewhere vLLM tells such a build by "cpu" in the version.
_SERVE = """
import importlib.metadata as metadata, sys
installed = metadata.version
def version(name):
    try:
        return installed(name)
    except metadata.PackageNotFoundError:
        if name != "vllm":
            raise
        other = metadata.packages_distributions()["vllm"][0]
        return installed(other) + ("+cpu" if "cpu" in other else "")
metadata.version = version
sys.path[:] = [folder for folder in sys.path if folder]  # the folder it was started in is none of its own
sys.argv[0] = "vllm"
from vllm.entrypoints.cli.main import main
main()
"""
_PROBE = "import importlib.util, sys; spec = importlib.util.find_spec('vllm'); sys.exit(not (spec and spec.origin))"
_LOG_PREFIX = re.compile(r"^(\([^)]*\) )?([A-Z]+ [\d-]+ [\d:]+ (\[[^]]*\] )?)?")
_EXCEPTION = re.compile(r"[\w.]*(Error|Exception): ")
_NOISE = re.compile(r"warnings\.warn|Warning: |resource_tracker|^Traceback |^File ")
_MOST_SHOWN = 100
_LINES_KEPT = 400
_LINES_SHOWN = 3
_POLL_S = 0.5
_REPORT_EVERY_S = 5.0


class Supervisor:
    """One ``vllm serve``. ``on_exit`` is told, on a thread, when it ends though nobody stopped it."""

    def __init__(self, checkpoint: Path, config: VllmConfig, *, on_exit: Callable[[str], None]) -> None:
        self._checkpoint = checkpoint
        self._config = config
        self._on_exit = on_exit
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._is_ready = self._is_stopping = False

    def start(self) -> VllmConfig:
        """Start and wait until it is ready; the configuration for a client of it. Raises ModelError, ConfigError."""
        program = vllm_command(self._config.vllm_python)
        address = Address("127.0.0.1", _free_port())
        # Nobody else on this machine may use it past tapster's own keys and limits.
        client = replace(self._config, addresses=(address,), arguments=(), api_key=secrets.token_urlsafe(24))
        command = [*program, *self._arguments(address)]
        log.debug("starting %s", " ".join(command))
        self._process = subprocess.Popen(
            [sys.executable, "-I", guard.__file__, str(self._config.stop_grace_s), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "VLLM_API_KEY": client.api_key or "", "PYTHONUNBUFFERED": "1"},
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), name="tapster-vllm-log", daemon=True)
        self._reader.start()
        try:
            self._wait_until_ready(address, client)
        except BaseException:
            self.stop()
            raise
        return client

    def _arguments(self, address: Address) -> list[str]:
        context = ["--max-model-len", str(self._config.context)] if self._config.context else []
        return [
            *("serve", str(self._checkpoint), "--host", address.host, "--port", str(address.port)),
            *("--served-model-name", self._checkpoint.name, "--enable-prompt-tokens-details"),
            *context,
            *self._config.arguments,
        ]

    def stop(self) -> None:
        """Ask it to end, and end it when it does not."""
        process, self._process = self._process, None
        self._is_stopping = True
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(self._config.stop_grace_s + 6)
        except subprocess.TimeoutExpired:
            log.warning("vLLM does not stop: it is killed")
        with suppress(OSError):  # the group is gone
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join(5)

    def _wait_until_ready(self, address: Address, client: VllmConfig) -> None:
        assert self._process is not None
        start = reported = time.monotonic()
        while True:
            if self._process.poll() is not None:
                self._join_reader()
                raise ModelError(
                    f"vLLM ended with status {self._process.returncode} instead of starting: {self._why()}"
                )
            if _is_well(address, client):
                break
            now = time.monotonic()
            if now - start > self._config.vllm_start_timeout_s:
                raise ModelError(f"vLLM is not ready after {now - start:.0f} s (--vllm-start-timeout-s): {self._why()}")
            if now - reported >= _REPORT_EVERY_S:
                reported = now
                log.info("vLLM is starting, %.0f s: %s", now - start, self._last_words())
            time.sleep(_POLL_S)
        self._is_ready = True
        log.info("vLLM is ready after %.0f s", time.monotonic() - start)

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        """Keep what it says, until it has ended."""
        assert process.stdout is not None
        with process.stdout as output:
            for raw in output:
                if line := " ".join(raw.decode("utf-8", "replace").split()):
                    self._lines.append(line)
                    log.debug("vLLM: %s", line)
        status = process.wait()
        if self._is_ready and not self._is_stopping:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            self._on_exit(f"vLLM ended with status {status} while it was serving: {self._why()}")

    def _last_words(self) -> str:
        """Its last line without process, level and time, cut to fit a terminal."""
        line = _without_prefix(self._lines[-1]) if self._lines else "no word yet"
        return line if len(line) <= _MOST_SHOWN else line[: _MOST_SHOWN - 1] + "…"

    def _join_reader(self) -> None:
        if self._reader is not None:
            self._reader.join(5)

    def _why(self) -> str:
        """Its last words, the exception first when there was one."""
        lines = [line for line in map(_without_prefix, self._lines) if not _NOISE.search(line)]
        errors = [line for line in lines if _EXCEPTION.match(line)]
        shown = [*errors[:1], *(line for line in lines[-_LINES_SHOWN:] if line not in errors[:1])]
        return " | ".join(line[:300] for line in shown) or "it said nothing"


def _without_prefix(line: str) -> str:
    return _LOG_PREFIX.sub("", line)


def vllm_command(python: str | None) -> list[str]:
    """How to run the program ``vllm``. Raises ConfigError when there is none, or ``python`` has none."""
    if python:
        found = shutil.which(os.path.expanduser(python))  # noqa: PTH111 - shutil takes names on PATH too
        if not found:
            raise ConfigError(f"--vllm-python {python}: there is no such program")
        found = os.path.abspath(found)  # noqa: PTH100 - resolving links would lead out of a virtual environment
        probe = [found, "-c", _PROBE]
        if subprocess.run(probe, capture_output=True, check=False, cwd="/").returncode:
            raise ConfigError(f"--vllm-python {python}: vLLM is not installed there")
        return [found, "-c", _SERVE]
    found = importlib.util.find_spec("vllm")
    if found and found.origin:  # and no folder that happens to be called so
        return [sys.executable, "-c", _SERVE]
    if found := shutil.which("vllm"):
        return [found]
    raise ConfigError(
        "vLLM is not installed here: give --vllm-python (or TAPSTER_VLLM_PYTHON) the interpreter that has it, or serve "
        "a running one with vllm://host:8000"
    )


def _is_well(address: Address, config: VllmConfig) -> bool:
    try:
        run_blocking(check_health(address, config))
    except LostConnection:
        return False
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
