"""``tapster convert`` as its users run it: what is made, where, and what is left behind when it ends early."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from convert_command import TAPSTER, convert, names, refusal
from tiny_checkpoints import edit_json

from tapster.converters.checkpoint.checkpoint import open_checkpoint
from tapster.runtime.gguf_header import read_header
from tapster.runtime.profile import load_profile
from tapster.runtime.runtime import Runtime
from tapster.runtime.sampling import SamplingParams

pytestmark = pytest.mark.usefixtures("own_signals")


def test_artifact_proof_and_sidecars_lie_beside_the_checkpoint(checkpoint: Path) -> None:
    assert convert(checkpoint, "--to", "gguf:f16") == 0
    sidecars = {f"tiny-F16.{name}" for name in ("Modelfile", "params", "preset.ini", "model.yaml")}
    assert names(checkpoint.parent) == {"tiny", "tiny-F16.gguf", "tiny-F16.proof.json"} | sidecars
    proof = json.loads((checkpoint.parent / "tiny-F16.proof.json").read_text())
    assert proof["verified"]
    assert proof["passed"]
    assert load_profile(checkpoint.parent / "tiny-F16.gguf").file_type == "F16"


def test_several_types_share_a_run_and_are_compared_with_16_bits(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    types = ("Q8_0", "Q4_0", "BF16", "IQ4_NL")
    targets = [word for name in types for word in ("--to", f"gguf:{name}")]
    assert convert(checkpoint, *targets, "--out", out, "--json", "--no-sidecars", "--proof-tokens", 600) == 0
    report = json.loads(capsys.readouterr().out)
    assert {row["type"] for row in report["artifacts"]} == set(types)
    assert names(out) == {f"tiny-{name}.{end}" for name in types for end in ("gguf", "proof.json")}
    for row in report["artifacts"]:
        measured = row["proof"]["checks"]["divergence"]["measured"]
        assert measured == (row["type"] != "BF16")
        assert row["proof"]["artifact"]["type"] == row["type"]


def test_a_16_bit_gguf_is_a_source_and_a_quantized_one_is_not(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = tmp_path / "half.gguf"
    assert convert(checkpoint, "--to", "gguf:F16", "--out", half, "--no-sidecars") == 0
    assert convert(half, "--to", "gguf:Q4_0", "--no-sidecars", "--proof-tokens", 600) == 0
    small = tmp_path / "half-Q4_0.gguf"
    assert load_profile(small).file_type == "Q4_0"
    assert "quantized already" in refusal(capsys, small, "--to", "gguf:Q8_0")
    assert names(tmp_path) == {"models", "half.gguf", "half.proof.json", "half-Q4_0.gguf", "half-Q4_0.proof.json"}


@pytest.mark.parametrize(
    ("kind", "target", "dtype"),
    [
        ("F16", "hf", "F16"),
        ("BF16", "hf", "BF16"),
        ("F32", "hf", "F32"),
        ("Q8_0", "hf", "BF16"),
        ("F16", "hf:bf16", "BF16"),
    ],
)
def test_a_folder_has_the_type_of_its_source(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, target: str, dtype: str
) -> None:
    source, folder = tmp_path / "source.gguf", tmp_path / "back"
    assert convert(checkpoint, "--to", f"gguf:{kind}", "--out", source, "--no-sidecars", "--no-verify") == 0
    capsys.readouterr()
    assert convert(source, "--to", target, "--out", folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["artifacts"][0]["type"] == dtype
    assert {tensor.dtype for tensor in open_checkpoint(folder).tensors.values()} == {dtype}


def test_what_is_there_is_not_replaced(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = checkpoint.parent / "tiny-F16.gguf"
    target.write_bytes(b"precious")
    assert "--force" in refusal(capsys, checkpoint, "--to", "gguf:F16")
    assert target.read_bytes() == b"precious"
    assert convert(checkpoint, "--to", "gguf:F16", "--force") == 0
    assert target.read_bytes()[:4] == b"GGUF"


def test_no_verify_is_written_down(checkpoint: Path) -> None:
    assert convert(checkpoint, "--to", "gguf:Q8_0", "--no-verify", "--no-sidecars") == 0
    proof = json.loads((checkpoint.parent / "tiny-Q8_0.proof.json").read_text())
    assert proof["verified"] is False
    assert "passed" not in proof


def test_stops_and_template_of_the_user_travel(checkpoint: Path) -> None:
    options = ("--chat-template", "kodalite", "--stop", "### END", "--no-sidecars")
    assert convert(checkpoint, "--to", "gguf:BF16", *options) == 0
    profile = load_profile(checkpoint.parent / "tiny-BF16.gguf")
    assert "### END" in profile.stop_strings
    assert profile.end_of_turn == "<|end|>"


def test_an_artifact_that_fails_its_proof_is_set_aside(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tapster.converters import material
    from tapster.converters.gguf import writer

    def damaging(files: list[tuple[Path, str]], *args: Any, **options: Any) -> Any:
        reports = writer.write_ggufs(files, *args, **options)
        for path, _type in files:
            data = bytearray(path.read_bytes())
            data[-4096:] = bytes(4096)
            path.write_bytes(data)
        return reports

    monkeypatch.setattr(material, "write_ggufs", damaging)
    assert convert(checkpoint, "--to", "gguf:F16", "--no-sidecars") == 1
    assert "tapster: tiny-F16.gguf" in capsys.readouterr().err
    rejected = {"tiny-F16.gguf.rejected", "tiny-F16.gguf.rejected.proof.json"}
    assert names(checkpoint.parent) == {"tiny"} | rejected
    assert json.loads((checkpoint.parent / "tiny-F16.gguf.rejected.proof.json").read_text())["passed"] is False
    monkeypatch.undo()
    assert convert(checkpoint, "--to", "gguf:F16", "--no-sidecars") == 0
    assert names(checkpoint.parent) == {"tiny", "tiny-F16.gguf", "tiny-F16.proof.json"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "gguf:Q4_K_L"], "Q4_K_M"),
        (["--to", "ggfu:Q4_0"], "did you mean 'gguf'"),
        (["--to", "gguf"], "which type"),
        ([], "--to"),
        (["--to", "gguf:F16", "--imatrix", "nowhere.gguf"], "no such file"),
        (["--to", "gguf:F16", "--tensor-type", "ffn_down=Q6_K"], "no effect"),
        (["--to", "gguf:Q4_0", "--tensor-type", "Q6_K"], "regular expression"),
        (["--to", "gguf:IQ2_XXS", "--imatrix", "none"], "without an importance matrix"),
        (["--to", "gguf:F16", "--to", "gguf:F32", "--out", "one.gguf"], "give a folder"),
        (["--to", "hf"], "already"),
        (["--to", "gguf:F16", "--publish", "x", "--no-verify"], "--no-verify"),
        (["--to", "gguf:F16", "--proof-tokens", "1"], "--proof-tokens"),
        (["--to", "gguf:F16", "--chat-template", "chatlm"], "chatml"),
        (["--to", "gguf:F16", "--chat-template", "none.jinja"], "none.jinja"),
        (["--to", "gguf:F16", "--threads", "100000"], "512"),
        (["--to", "Q4_K_M"], "did you mean gguf:Q4_K_M"),
        (["--to", "gguf:Q4_0", "--tensor-type", "ffn_[=Q6_K"], "regular expression"),
        (["--to", "gguf:Q4_0", "--embedding-type", "Q6K"], "Q6_K"),
        (["--to", "gguf:Q4_0", "--proof-text", "nowhere.txt"], "nowhere.txt"),
        (["--to", "gguf:Q4_0", "--calibration", "nowhere.txt"], "nowhere.txt"),
        (["--to", "gguf:Q4_0", "--calibration", "a.txt", "--imatrix", "none"], "no effect"),
        (["--to", "gguf:Q4_0", "--proof-text", "a.txt", "--no-verify"], "no effect"),
        (["--to", "gguf:Q4_0", "--repo", "me/it"], "no effect"),
        (["--to", "gguf:F16", "--out", "-"], "standard output"),
    ],
)
def test_refusals_say_what_to_do_and_leave_nothing(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in refusal(capsys, checkpoint, *arguments)
    assert names(checkpoint.parent) == {"tiny"}


def test_bad_checkpoints_are_refused_in_one_line(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = checkpoint / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert "model.safetensors" in refusal(capsys, checkpoint, "--to", "gguf:F16")
    weights.write_bytes(whole)
    edit_json(checkpoint / "config.json", vocab_size=7)
    assert "7" in refusal(capsys, checkpoint, "--to", "gguf:F16")
    (checkpoint / "chat_template.jinja").write_text("{% if %}")
    assert convert(checkpoint, "--to", "gguf:F16") == 2
    assert names(checkpoint.parent) == {"tiny"}


def test_a_late_refusal_leaves_no_folder_either(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "not.gguf").write_bytes(b"no matrix")
    out = tmp_path / "new" / "deep"
    refusal(capsys, checkpoint, "--to", "gguf:Q4_0", "--imatrix", tmp_path / "not.gguf", "--out", out)
    assert not (tmp_path / "new").exists()


def test_what_others_wrote_is_not_replaced(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("README.md", "params", "tiny-F16.Modelfile", "tiny-F16.proof.json"):
        (out / name).write_text("mine")
    assert "tiny-F16.proof.json" in refusal(capsys, checkpoint, "--to", "gguf:F16", "--out", out)
    (out / "tiny-F16.proof.json").unlink()
    assert "README.md" in refusal(capsys, checkpoint, "--to", "gguf:Q8_0", "--publish", out)
    assert "Modelfile" in refusal(capsys, checkpoint, "--to", "gguf:F16", "--out", out)
    assert all(path.read_text() == "mine" for path in out.iterdir())


def test_a_folder_with_other_things_in_it_is_not_replaced(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    assert convert(checkpoint, "--to", "gguf:F16", "--out", tmp_path / "a.gguf", "--no-sidecars") == 0
    assert convert(tmp_path / "a.gguf", "--to", "hf", "--out", out) == 0
    assert "--force" in refusal(capsys, tmp_path / "a.gguf", "--to", "hf", "--out", out)
    assert convert(tmp_path / "a.gguf", "--to", "hf", "--out", out, "--force") == 0
    (out / "notes.txt").write_text("mine")
    assert "notes.txt" in refusal(capsys, tmp_path / "a.gguf", "--to", "hf", "--out", out, "--force")
    assert (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").unlink()
    inside = Path(shutil.move(tmp_path / "a.gguf", out / "a.gguf"))
    assert "a.gguf" in refusal(capsys, inside, "--to", "hf", "--out", out, "--force")
    assert "source itself" in refusal(capsys, inside, "--to", "gguf:F32", "--out", inside, "--force")
    assert inside.is_file()


def test_two_targets_of_one_name_are_refused_first(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(checkpoint, "--to", "gguf:F16", "--out", tmp_path / "a.gguf", "--no-sidecars") == 0
    said = refusal(capsys, tmp_path / "a.gguf", "--to", "hf:F16", "--to", "hf:F32", "--out", tmp_path / "new")
    assert "two targets" in said
    assert not (tmp_path / "new").exists()


def test_single_tensors_of_another_type_also_in_a_direct_one(checkpoint: Path) -> None:
    options = ("--embedding-type", "F16", "--no-sidecars", "--proof-tokens", 64)
    assert convert(checkpoint, "--to", "gguf:Q8_0", *options) == 0
    header = read_header(checkpoint.parent / "tiny-Q8_0.gguf")
    assert {tensor.type for tensor in header.tensors if tensor.name == "token_embd.weight"} == {"F16"}
    recipe = json.loads((checkpoint.parent / "tiny-Q8_0.proof.json").read_text())["recipe"]
    assert recipe["embedding_type"] == "F16"


def test_clamped_values_pass_and_are_written_down(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint / "model.safetensors")
    weights["model.embed_tokens.weight"][3, 5] = 1e5
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    assert "--clamp" in refusal(capsys, checkpoint, "--to", "gguf:F16", "--no-sidecars")
    assert convert(checkpoint, "--to", "gguf:F16", "--clamp", "--no-sidecars") == 0
    assert "1 values in 1 tensors" in capsys.readouterr().out


def test_json_says_why_it_ended(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkpoint.parent / "tiny-F16.gguf").touch()
    assert convert(checkpoint, "--to", "gguf:F16", "--json") == 2
    assert "--force" in json.loads(capsys.readouterr().out)["error"]


def test_what_a_killed_process_left_is_swept_away(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = out / f".tapster-{platform.node()}-{dead.pid}-abc"
    left.mkdir(parents=True)
    assert convert(checkpoint, "--to", "gguf:F16", "--out", out, "--no-sidecars") == 0
    assert names(out) == {"tiny-F16.gguf", "tiny-F16.proof.json"}


def test_a_source_that_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere" in refusal(capsys, tmp_path / "nowhere", "--to", "gguf:F16")
    (tmp_path / "empty").mkdir()
    assert "empty" in refusal(capsys, tmp_path / "empty", "--to", "gguf:F16")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_leaves_nothing(demo_checkpoint: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    command = [*TAPSTER, "convert", str(demo_checkpoint), "--to", "gguf:IQ3_S", "--out", str(out)]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(out.glob(".tapster-*/*IQ3_S*")) and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(number)
    running.send_signal(number)
    _, said = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "Traceback" not in said
    assert not out.exists()


def test_a_full_disk_is_one_line(checkpoint: Path, tmp_path: Path) -> None:
    """A file-size limit fails the write as a full disk does."""
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); import signal; "
    limited += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from tapster.server.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", limited, "convert", str(checkpoint), "--to", "gguf:F32", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert names(tmp_path) == {"models"}


async def greedy_answer(path: Path, question: str) -> tuple[str, str | None]:
    """The answer as the runtime gives it without a single setting, and why it ended."""
    runtime = Runtime.open(path)
    try:
        messages = [{"role": "user", "content": question}]
        (stream,) = runtime.chat(messages, SamplingParams(temperature=0, max_tokens=400))
        text = "".join([delta.content async for delta in stream])
    finally:
        runtime.close()
    return text, stream.finish_reason


async def test_demo_round_trip_answers_and_stops(demo_checkpoint: Path, tmp_path: Path) -> None:
    """A real model to a checkpoint and back, in a type whose blocks its rows do not fill: it answers as it is."""
    path = tmp_path / "SmolLM2-Q4_K_M.gguf"
    assert convert(demo_checkpoint, "--to", "gguf:Q4_K_M", "--out", path, "--proof-tokens", 400) == 0
    text, finish_reason = await greedy_answer(path, "What is the capital of France? Answer in one word.")
    assert "Paris" in text
    assert finish_reason == "stop"


async def test_from_training_to_an_answer_that_stops(small_llama: Path, tmp_path: Path) -> None:
    """Trained here, converted, served: its end of turn is plain text of several tokens, and it ends there."""
    path = tmp_path / "small-Q4_K_M.gguf"
    assert convert(small_llama, "--to", "gguf:Q4_K_M", "--out", path, "--proof-tokens", 2000) == 0
    record = json.loads((tmp_path / "small-Q4_K_M.proof.json").read_text())
    assert record["checks"]["stops"]["passed"]
    assert record["checks"]["divergence"]["overall"]["top1"] > 0.8
    text, finish_reason = await greedy_answer(path, "Tom has 3 apples and buys 4 more. How many apples has he?")
    assert finish_reason == "stop"
    assert "<|end|>" not in text


def test_published_folder_is_complete(small_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small-GGUF"
    types = ("Q8_0", "Q4_K_M", "IQ2_XXS")
    targets = [word for name in types for word in ("--to", f"gguf:{name}")]
    options = ("--publish", folder, "--repo", "me/small-GGUF", "--proof-tokens", 1000)
    assert convert(small_llama, *targets, *options) == 0
    name = small_llama.name
    files = {f"{name}-{kind}.{end}" for kind in types for end in ("gguf", "proof.json")}
    files |= {
        "README.md",
        "Modelfile",
        "params",
        "template",
        "preset.ini",
        "model.yaml",
        "divergence.png",
        "divergence.svg",
    }
    assert names(folder) == files | {f"{name}-imatrix.gguf"}
    card = (folder / "README.md").read_text()
    assert all(f"{name}-{kind}.gguf" in card for kind in types)
    assert "me/small-GGUF" in card
    assert os.fspath(tmp_path) not in card
