"""``tapster compare`` as it is typed, on models that run."""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from tiny_gguf import write_tiny_gguf

from tapster.server import cli
from tapster.server.bench.events import Answer
from tapster.server.bench.process import child
from tapster.server.compare.results import SPEEDS
from tapster.server.compare.rounds import decode_rate

SHORT = ["--prompt-tokens", "40", "--tokens", "96", "--repeat", "2", "--kld-tokens", "64", "--threads", "1"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: write_tiny_gguf(folder / f"{name}.gguf", seed=seed) for seed, name in enumerate(("one", "two"))}


@pytest.fixture(scope="module")
def compared(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two models that run and one that is none, once for all tests."""
    folder = tmp_path_factory.mktemp("compared")
    broken = folder / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(60))
    words = [str(models["one"]), f"{models['two']}@llama.cpp", str(broken), "--source", str(models["one"])]
    files = ["--json", str(folder / "out.json"), "--chart", str(folder / "out.png")]
    status = cli.main(["compare", *words, *SHORT, *files])
    document = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    return {"status": status, "document": document, "chart": folder / "out.png"}


def test_every_figure_is_there(compared: dict[str, Any]) -> None:
    one, two, _ = compared["document"]["models"]
    for row in (one, two):
        assert (row["engine"], row["format"], row["error"]) == ("llama.cpp", "gguf", None)
        assert set(row["figures"]) == set(SPEEDS)
        assert all(0 < figure["min"] <= figure["median"] <= figure["max"] for figure in row["figures"].values())
        assert len(row["samples"]["decode_tps"]) == 2
        assert row["peak_bytes"] > row["file_bytes"] > 0
    assert (one["is_source"], one["mean_kld"], one["top1"]) == (True, 0.0, 1.0)
    assert two["mean_kld"] == pytest.approx(two["divergence"]["overall"]["mean"])
    assert two["mean_kld"] > 0.1


def test_one_that_does_not_load_is_a_row_and_the_status(compared: dict[str, Any]) -> None:
    *_, broken = compared["document"]["models"]
    assert compared["status"] == 1
    assert "broken.gguf" in broken["error"]
    assert "\n" not in broken["error"]
    assert broken["figures"] == {}


def test_it_recommends_by_the_rule(compared: dict[str, Any]) -> None:
    document = compared["document"]
    assert document["recommendation"]["model"] == "one.gguf"
    assert "the only one within 0.1 nats of one.gguf" in document["recommendation"]["text"]
    assert document["models"][0]["is_on_front"]
    assert (document["source"], document["ended"]) == ("one.gguf", None)


def test_the_chart_is_a_picture(compared: dict[str, Any]) -> None:
    assert compared["chart"].read_bytes().startswith(b"\x89PNG")


def test_the_table_goes_to_standard_error_beside_json(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chart = tmp_path / "c.svg"
    short = ["--prompt-tokens", "8", "--tokens", "96", "--repeat", "1"]
    words = [str(models["one"]), "--no-kld", *short, "--json", "-", "--chart", str(chart)]
    assert cli.main(["compare", *words]) == 0
    out, err = capsys.readouterr()
    [row] = json.loads(out)["models"]
    assert row["mean_kld"] is None
    assert "round 1/1: one.gguf on llama.cpp" in err
    assert "memory: resident memory of the server's processes" in err
    assert "Run one.gguf: it is the fastest" in err
    assert "<svg" in chart.read_text(encoding="utf-8")


def test_a_prompt_that_does_not_fit_is_an_error_of_the_row(
    models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(models["one"]), "--no-kld", "--repeat", "1", "--prompt-tokens", "600"]
    assert cli.main(["compare", *words]) == 1
    assert "one.gguf: the server answered HTTP 400: the prompt is 600 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_prints_what_was_measured_and_leaves_nothing(
    models: dict[str, Path], tmp_path: Path, number: signal.Signals, status: int
) -> None:
    path, log = tmp_path / "out.json", tmp_path / "log"
    command = [sys.executable, "-m", "tapster.server.cli", "compare", *map(str, models.values()), "--no-kld"]
    with (
        log.open("wb") as output,
        child([*command, "--prompt-tokens", "8", "--tokens", "96", "--json", str(path)], stdout=output) as process,
    ):
        deadline = time.monotonic() + 120
        while "two.gguf" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert process.wait(60) == status
    assert children
    assert not [server for server in children if server.is_running()]
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["ended"] == ("interrupted" if number is signal.SIGINT else "terminated")
    one, two = document["models"]
    assert set(one["figures"]) == set(SPEEDS)
    assert two["figures"] == {}
    assert "this is what was measured so far" in log.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demo", "--repeat", "0"], "--repeat must be at least 1, not 0"),
        (["demo", "--tokens", "1"], "--tokens must be at least 2, not 1"),
        (["demo", "--threads", "0"], "--threads must be at least 1, not 0"),
        (["demo", "--max-kld", "-1"], "--max-kld must be a number of nats of at least 0, not -1"),
        (["demo", "--max-kld", "nan"], "--max-kld must be a number of nats"),
        (["demo", "--no-kld", "--source", "demo"], "leave out --no-kld"),
        (["demo", "--chart", "x.pdf"], "the name must end with .png or .svg"),
        (["demo", "--chart", "no/such/x.png"], "there is no folder"),
        (["demo", "--json", "no/such/x.json"], "there is no folder"),
        (["demo@nonesuch"], "no engine is called 'nonesuch'"),
        (["demo", "demo"], "demo is given 2 times"),
        (["demo", "--source", "./nonesuch.gguf"], "no such file or folder"),
    ],
)
def test_options_that_make_no_sense(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", *words]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("tapster: ")
    assert message in line


def test_decode_rate_by_hand() -> None:
    def answer(first_s: float, ended_s: float, new_tokens: int) -> Answer:
        return Answer(0.0, (first_s,), ended_s, "x", new_tokens, 3, True)

    assert decode_rate([answer(1.0, 3.0, 11)]) == 5.0
    assert decode_rate([answer(1.0, 3.0, 11), answer(2.0, 5.0, 11)]) == 5.0
    assert decode_rate([answer(1.0, 1.0, 1)]) is None
