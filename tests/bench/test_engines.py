"""The engines' benchmark: what its figures mean, who its opponents are, and that they do the same work."""

import io
import json
import sys
import warnings
from pathlib import Path

import pytest
from rich.console import Console
from tiny_checkpoints import make_checkpoint
from tiny_tokenizer import save_tokenizer

from tapster.runtime.errors import ConfigError, ModelError
from tapster.server import cli
from tapster.server.bench import contest
from tapster.server.bench.contest import ChildSide, Contest, Turn, Turns, contest_rows, hold, turn_of
from tapster.server.bench.contest_vllm import http_url, rows_of, vllm_url
from tapster.server.bench.conversion_report import print_rows, rows_to_json
from tapster.server.bench.engine_options import ENGINE_BENCHES, EngineBenchOptions, parse_engines
from tapster.server.bench.events import Answer
from tapster.server.bench.json_child import json_child
from tapster.server.bench.opponents import OPPONENTS


def side(name: str, *walls_s: float) -> Turns:
    return Turns(name, [Turn(wall_s, 0.5, 11) for wall_s in walls_s])


def test_the_ratio_is_of_turns_and_its_bar_is_a_least() -> None:
    *rates, ratio, decode = contest_rows("e, 1 stream", [side("ours", 1.5, 2.5, 1.5), side("theirs", 1.5, 3.5, 2.5)])
    assert [row.value for row in rates] == [pytest.approx(11 / 1.5), pytest.approx(11 / 2.5)]
    assert (ratio.work, ratio.value) == ("e, 1 stream: ours / theirs", pytest.approx(1.4))
    assert ratio.is_met
    assert decode.value == pytest.approx(1.5)  # medians of 1, 3 / 2 and 2
    assert contest_rows("e", [side("ours", 2.0), side("theirs", 1.8)])[2].is_met is False


def test_answers_sent_together_are_one_turn() -> None:
    answers = [Answer(1.0, (2.0, 3.0), 4.0, "x", 5, 3, True), Answer(1.5, (1.75,), 6.0, "x", 7, 3, True)]
    assert turn_of(answers) == Turn(wall_s=5.0, first_s=0.75, tokens=12)


def test_vllm_has_a_bar_for_its_first_token() -> None:
    turns = [side("through tapster", 2.0, 2.0), side("direct", 2.0, 2.0)]
    rows = rows_of(turns, {"through tapster": [40.0, 60.0], "direct": [20.0, 35.0]})
    assert [(row.value, row.is_met) for row in rows if row.bar is not None] == [(1.0, True), (22.5, False)]
    assert http_url("vllm://h:1") == http_url("http://h:1") == "http://h:1"
    assert vllm_url("https://h:1") == "vllms://h:1"


def test_names() -> None:
    assert parse_engines("all") == tuple(ENGINE_BENCHES)
    assert parse_engines("mlx,onnx,mlx") == ("mlx", "onnx")
    for text in ("", "onyx"):
        with pytest.raises(ConfigError, match="some of onnx,mlx"):
            parse_engines(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["http://127.0.0.1:1", "--engines", "all"], "give a MODEL, not a URL"),
        (["--engines", "onyx"], "--engines onyx: give all"),
        (["--vllm-url", "vllm://h"], "--vllm-url is for --engines"),
    ],
)
def test_options_that_make_no_sense(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


def test_what_is_not_there_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TAPSTER_VLLM_PYTHON", raising=False)
    path = tmp_path / "out.json"
    assert cli.main(["bench", "demo", "--engines", "vllm", "--json", str(path)]) == 0
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["engines"] == []
    assert document["notes"] == ["vllm: not measured: set TAPSTER_VLLM_PYTHON or give --vllm-url"]
    assert "not measured" in capsys.readouterr().out


def test_the_report_has_notes() -> None:
    console = Console(width=100, file=io.StringIO(), record=True)
    print_rows([], console, "engines", ["one thing"])
    assert "note: one thing" in console.export_text()
    assert json.loads(rows_to_json([], "engines", ["one thing"]))["notes"] == ["one thing"]


async def test_an_opponent_that_cannot_load_says_so(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(60))
    module = "tapster.server.bench.opponents"
    async with json_child([sys.executable, "-m", module, "tapster llama.cpp", str(path), "1"], "it") as process:
        with pytest.raises(ModelError, match=r"tapster llama.cpp: .*broken.gguf"):
            await process.read()


async def test_a_contest_of_an_engine_with_itself(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real way, over HTTP and in processes; the opponent is the engine without a server."""
    monkeypatch.setattr(contest, "REST_S", 0.0)
    said: list[str] = []
    found = await hold(
        Contest("llama.cpp", "tapster llama.cpp", tiny_model, (1, 2), new_tokens=5),
        repeat=1,
        threads=1,
        timeout_s=120.0,
        seed=0,
        say=said.append,
    )
    works = [row.work for row in found if row.bar is not None]
    assert works == [f"llama.cpp, {streams}: tapster / tapster llama.cpp" for streams in ("1 stream", "2 streams")]
    assert all(row.value > 0 for row in found)
    assert said[-1] == "llama.cpp: 2 streams, 1/1"


def test_options_of_the_run() -> None:
    assert not EngineBenchOptions().has_vllm
    assert EngineBenchOptions(vllm_url="vllm://h").has_vllm


@pytest.mark.parametrize(("name", "needs"), [("model.generate", "transformers"), ("mlx_lm", "mlx_lm")])
async def test_opponents_make_as_many_tokens_as_asked(name: str, needs: str, checkpoint: Path) -> None:
    pytest.importorskip(needs)
    module = "tapster.server.bench.opponents"
    async with json_child([sys.executable, "-m", module, name, str(checkpoint), "1"], name) as process:
        await process.read()
        opponent = ChildSide(process)
        for prompts in ([[5, 6, 7]], [[5, 6, 7], [8, 9, 10]]):
            turn = await opponent.turn(prompts, 4)
            assert turn.tokens == 4 * len(prompts)
            assert turn.wall_s > (turn.first_s or 0.0) >= 0


def test_every_engine_of_this_process_is_an_opponent() -> None:
    assert {"onnxruntime-genai", "mlx_lm", "model.generate", "tapster onnx", "tapster mlx"} <= set(OPPONENTS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's and transformers' own
        return make_checkpoint("llama", tmp_path_factory.mktemp("opponents") / "tiny", save_tokenizer).folder
