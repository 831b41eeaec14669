"""``tapster serve`` as a process: what it refuses, how it starts and how it ends."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tiny_gguf import write_tiny_gguf

SERVE = [sys.executable, "-m", "tapster.server.cli", "serve"]
LIMIT_S = 60


def refused(*arguments: str, **env: str) -> str:
    """The one line on standard error of a server that exits with 2."""
    done = subprocess.run(
        [*SERVE, *arguments], capture_output=True, text=True, timeout=LIMIT_S, env={**os.environ, **env}
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A ready server and its address; it is gone afterwards."""
    process = subprocess.Popen(
        [*SERVE, *arguments, "--port", "0", "--no-page"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr
        line = process.stderr.readline()
        assert " answers on " in line, line
        yield process, line.split(" answers on ")[1].strip().removesuffix("/v1")
    finally:
        process.kill()
        process.communicate(timeout=LIMIT_S)


def post(url: str, **body: Any) -> httpx.Response:
    return httpx.post(url, json=body, timeout=LIMIT_S)


def in_background(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except httpx.HTTPError as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def long_answer(url: str, tokens: int) -> httpx.Response:
    return post(f"{url}/v1/completions", prompt="Hello", max_tokens=tokens, ignore_eos=True)


def wait_until_running(url: str) -> None:
    """Until the server has taken a request up."""
    for _ in range(600):
        if httpx.get(f"{url}/ready", timeout=LIMIT_S).json()["engine"]["running"]:
            return
        time.sleep(0.02)
    pytest.fail("the request never ran")


def test_bad_models_are_refused_in_one_line(tmp_path: Path) -> None:
    model = write_tiny_gguf(tmp_path / "model.gguf")
    whole = model.read_bytes()
    (tmp_path / "short.gguf").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "zeros.gguf").write_bytes(bytes(1000))
    (tmp_path / "strange.gguf").write_bytes(whole.replace(b"llama", b"lyama"))
    (tmp_path / "empty").mkdir()
    assert "no such file" in refused(str(tmp_path / "modle.gguf")).lower()
    assert "truncated" in refused(str(tmp_path / "short.gguf"))
    assert "zeros.gguf" in refused(str(tmp_path / "zeros.gguf"))
    assert "lyama" in refused(str(tmp_path / "strange.gguf"))
    assert "empty" in refused(str(tmp_path / "empty"))


def test_bad_settings_are_refused_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    assert "--context" in refused(str(tiny_model), "--context", "-1")
    assert "chatml" in refused(str(tiny_model), "--chat-template", "chatlm")
    broken = tmp_path / "broken.jinja"
    broken.write_text("{% for %}")
    assert "broken.jinja" in refused(str(tiny_model), "--chat-template", str(broken))
    assert "--max-body-bytes must be at least 1, not 0" in refused(str(tiny_model), "--max-body-bytes", "0")
    assert "--max-choices must be between 1 and 128, not 200" in refused(str(tiny_model), "--max-choices", "200")
    assert "api key" in refused(str(tiny_model), TAPSTER_API_KEY="two words").lower()


def test_a_port_in_use_is_refused_in_one_line(tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}: it is in use" in refused(str(tiny_model), "--port", str(port))


def test_sigterm_lets_running_requests_finish(tiny_model: Path) -> None:
    with serving(str(tiny_model)) as (process, url):
        thread, results = in_background(lambda: long_answer(url, 400))
        wait_until_running(url)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0
        assert "shutting down: 1 running or waiting requests have 30 s" in log
        thread.join()
        assert results[0].json()["usage"]["completion_tokens"] == 400


@pytest.fixture(scope="module")
def patient_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with room for answers that take longer than a test."""
    return write_tiny_gguf(tmp_path_factory.mktemp("patient") / "patient.gguf", context=8192)


def test_a_drain_refuses_new_requests_and_ends_when_its_time_is_over(patient_model: Path) -> None:
    with serving(str(patient_model), "--drain-s", "1") as (process, url):
        thread, results = in_background(lambda: long_answer(url, 8000))
        wait_until_running(url)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        refusal = long_answer(url, 1)
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (503, "shutting_down")
        assert process.wait(LIMIT_S) == 0
        thread.join()
        assert results[0].status_code == 503
        assert "shutting down" in results[0].json()["error"]["message"]


def test_a_second_signal_ends_at_once(patient_model: Path) -> None:
    with serving(str(patient_model), "--drain-s", "600") as (process, url):
        thread, _ = in_background(lambda: long_answer(url, 8000))
        wait_until_running(url)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 130
        thread.join()


def test_a_failing_engine_ends_the_process(tiny_model: Path) -> None:
    """Fault injection: the decode call fails in a server that runs in this test's own script."""
    script = (
        "import sys\n"
        "from tapster.runtime.engines.llamacpp import context\n"
        "real, calls = context.LlamaContext.decode, []\n"
        "def decode(self, batch):\n"
        "    calls.append(batch)\n"
        "    return real(self, batch) if len(calls) < 20 else -3\n"
        "context.LlamaContext.decode = decode\n"
        "from tapster.server.cli import main\n"
        f"sys.exit(main(['serve', {str(tiny_model)!r}, '--port', '0', '--no-page']))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        url = process.stderr.readline().split(" answers on ")[1].strip().removesuffix("/v1")
        response = long_answer(url, 400)
        assert response.status_code == 500
        assert "status -3" in response.json()["error"]["message"]
        assert process.wait(LIMIT_S) == 1
    finally:
        process.kill()
        process.communicate(timeout=LIMIT_S)


def test_ctrl_c_ends_without_a_traceback(tiny_model: Path) -> None:
    with serving(str(tiny_model)) as (process, _):
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0
        assert "shutting down: no request is running" in errors
        assert "Traceback" not in errors
