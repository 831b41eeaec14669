"""``tapster bench`` as it is typed."""

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tapster.runtime.errors import ConfigError
from tapster.server import cli
from tapster.server.bench.options import SCENARIOS
from tapster.server.bench.own_server import free_port
from tapster.server.bench.process import child
from tapster.server.commands import bench


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(words)


URL = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--repeat", "0"], "--repeat must be at least 1, not 0"),
        (["--replay-threads", "-1"], "--replay-threads must be at least 1, not -1"),
        (["--timeout-s", "0"], "--timeout-s must be more than 0, not 0"),
        ([URL, "--ceiling"], "--ceiling with a URL needs the model as a file"),
        ([URL, "--contended"], "--contended starts servers of its own"),
        ([URL, "--serve-args", "--threads 1"], "--serve-args is for a server started here"),
        (["--ceiling-model", "demo"], "--ceiling-model is for a server at a URL"),
        (["--ceiling", "--chat"], "--chat wraps the prompts in a template"),
        (["--serve-args", "'"], "cannot be split into words"),
        (["--json", "no/such/folder/x.json"], "there is no folder"),
        (["http://host:port"], "is no URL"),
    ],
)
def test_options_that_make_no_sense(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bench.run(parse(*words))


def test_an_unknown_scenario_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--scenario", "tripled")
    message = capsys.readouterr().err
    assert all(name in message for name in SCENARIOS)


def test_the_command_writes_json_alone_to_standard_output(
    stream_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        bench.run(parse(stream_server.url, "--scenario", "single", "--repeat", "2", "--seed", "3", "--json", "-")) == 0
    )
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["settings"]["seed"] == 3
    [single] = document["scenarios"]
    assert set(single["figures"]["ttft_p50_ms"]) == {"median", "min", "max"}
    assert "TTFT p50, ms" in err


def test_the_command_writes_a_file(stream_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result.json"
    assert bench.run(parse(stream_server.url, "--scenario", "mixed", "--repeat", "1", "--json", str(path))) == 0
    [bar] = json.loads(path.read_text(encoding="utf-8"))["bars"]
    assert bar["name"] == "mixed: largest gap over median"
    assert "mixed" in capsys.readouterr().out


COMMAND = """
import argparse, sys
from tapster.server import cli
from tapster.server.commands import bench
parser = argparse.ArgumentParser()
bench.add_arguments(parser)
sys.exit(bench.run(parser.parse_args()))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command(stream_server: Any, number: signal.Signals, status: int) -> None:
    with child([sys.executable, "-c", COMMAND, stream_server.url, "--model", "hangs"]) as process:
        deadline = time.monotonic() + 60
        while not stream_server.bodies and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(30) == status


def test_an_error_is_one_line_and_exit_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", f"http://127.0.0.1:{free_port()}"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("tapster: cannot reach http://127.0.0.1:")


def test_a_model_is_served_for_the_run_and_no_longer(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, children = tmp_path / "result.json", set(psutil.Process().children())
    assert bench.run(parse(str(demo_model), "--scenario", "single", "--repeat", "1", "--json", str(path))) == 0
    document = json.loads(path.read_text(encoding="utf-8"))
    [single] = document["scenarios"]
    assert (single["prompt_tokens"], single["new_tokens"]) == (31, 96)
    start = document["start_up"]
    assert 0 < start["models_s"] <= start["ready_s"] <= start["first_token_s"]
    assert document["memory"]["ended_bytes"] > document["memory"]["model_bytes"]
    assert document["notes"] == []
    assert "resident memory" in capsys.readouterr().out
    assert not set(psutil.Process().children()) - children


def test_ctrl_c_ends_the_server_too(demo_model: Path) -> None:
    with child([sys.executable, "-c", COMMAND, str(demo_model)]) as process:
        command, deadline = psutil.Process(process.pid), time.monotonic() + 60
        while not (servers := command.children()) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert [server.is_running() for server in servers] == [False]
