"""MLX and ONNX folders as ``tapster convert`` makes them: what is in them, their proofs, and what is left behind when
it ends early."""

import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convert_command import TAPSTER, convert, names, refusal
from tiny_checkpoints import TinyCheckpoint, edit_json

from tapster.converters import folder_formats
from tapster.converters import folders as folders_module
from tapster.runtime.profile import load_profile

for _name in ("mlx", "mlx_lm", "onnx_ir", "onnxruntime"):
    if importlib.util.find_spec(_name) is None:
        pytest.skip(f"no {_name}: pip install 'tapster[dev]'", allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own imports'
    import mlx_lm  # noqa: F401 - for the warnings of its import

pytestmark = pytest.mark.usefixtures("own_signals")

SHORT = ("--proof-tokens", 64, "--quiet")
WEIGHTS = {"mlx": "model.safetensors", "onnx": "model.onnx.data"}


def proof(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.proof.json").read_text())


def test_several_formats_in_one_command(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, stop = tmp_path / "out", "END OF STORY"
    targets = ("--to", "mlx:4bit", "--to", "onnx:int4", "--to", "gguf:Q4_0", "--group-size", 32)
    assert convert(checkpoint, *targets, "--out", out, "--json", "--no-sidecars", "--stop", stop, *SHORT) == 0
    report = json.loads(capsys.readouterr().out)
    made = {row["format"]: row for row in report["artifacts"]}
    folders = {"tiny-mlx-4bit-g32", "tiny-onnx-int4-g32"}
    assert names(out) == {f"{name}.proof.json" for name in folders} | folders | {
        "tiny-Q4_0.gguf",
        "tiny-Q4_0.proof.json",
    }
    for name, kind in (("mlx", "4bit"), ("onnx", "int4")):
        row, folder = made[name], out / f"tiny-{name}-{kind}-g32"
        assert (row["path"], row["type"], row["failures"]) == (str(folder), kind, [])
        assert row["bytes"] == sum(file.stat().st_size for file in folder.iterdir())
        record = row["proof"]
        assert record == proof(out, folder.name)
        assert list(record) == list(made["gguf"]["proof"])
        assert list(record["artifact"]) == list(made["gguf"]["proof"]["artifact"])
        assert record["artifact"]["type"] == kind
        assert record["artifact"]["parameters"] == made["gguf"]["proof"]["artifact"]["parameters"]
        assert WEIGHTS[name] in record["artifact"]["sha256"]
        assert record["recipe"]["group_size"] == 32
        assert record["recipe"]["stops"] == [stop]
        assert {"tapster", name if name == "mlx" else "onnx_ir"} <= record["versions"].keys() | {"tapster"}
        checks = record["checks"]
        assert all(check["passed"] for check in checks.values())
        assert checks["divergence"]["measured"]
        assert 0 < checks["divergence"]["overall"]["mean"] < 0.1
        assert stop in checks["stops"]["strings"]
        assert checks["stops"]["eog_ids"] == [2, 1]
        assert f"{'int4' if name == 'onnx' else kind}-g32" in checks["tensors"]["types"]
        assert stop in load_profile(folder).stop_strings
    assert made["onnx"]["proof"]["recipe"]["int4_method"] == "k-quant"


@pytest.mark.parametrize("recipe", ["stablelm-12b", "qwen2", "arcee"])
@pytest.mark.parametrize("target", ["mlx:bf16", "onnx:fp16"])
def test_16_bits_predict_what_llama_cpp_does(
    tiny_checkpoint: Callable[[str], TinyCheckpoint], tmp_path: Path, recipe: str, target: str
) -> None:
    assert convert(tiny_checkpoint(recipe).folder, "--to", target, "--out", tmp_path / "it", *SHORT) == 0
    assert proof(tmp_path, "it")["checks"]["divergence"]["overall"]["mean"] < 1e-3


def flip_scales(folder: Path, name: str) -> None:
    """The sign of the scales of one layer."""
    if name == "mlx":
        swap_or_change(folder / "model.safetensors", "model.layers.1.mlp.up_proj.scales", None)
        return
    place = external(folder, "model.layers.1.mlp.up_proj.weight.scales")
    data = np.memmap(folder / "model.onnx.data", np.uint8, "r+")
    data[place][3::4] ^= 0x80


def swap_tensors(folder: Path, name: str) -> None:
    first, second = (f"model.layers.{layer}.mlp.up_proj" for layer in (0, 1))
    if name == "mlx":
        swap_or_change(folder / "model.safetensors", f"{first}.weight", f"{second}.weight")
        return
    data = np.memmap(folder / "model.onnx.data", np.uint8, "r+")
    one, other = (external(folder, f"{layer}.weight.codes") for layer in (first, second))
    data[one], data[other] = data[other].copy(), data[one].copy()


def swap_or_change(path: Path, first: str, second: str | None) -> None:
    entries = json.loads(path.read_bytes()[8:][: int.from_bytes(path.read_bytes()[:8], "little")])
    begin = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    data = np.memmap(path, np.uint8, "r+", offset=begin)
    one = slice(*entries[first]["data_offsets"])
    if second is None:
        data[one][1::2] ^= 0x80  # bfloat16
        return
    other = slice(*entries[second]["data_offsets"])
    data[one], data[other] = data[other].copy(), data[one].copy()


def external(folder: Path, name: str) -> slice:
    import onnx_ir as ir

    tensor = ir.load(folder / "model.onnx").graph.initializers[name].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    start = tensor.offset or 0
    return slice(start, start + tensor.nbytes)


def poison_norm(folder: Path, name: str) -> None:
    if name == "mlx":
        path = folder / "model.safetensors"
        raw = path.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        start = 8 + size + json.loads(raw[8 : 8 + size])["model.norm.weight"]["data_offsets"][0]
        path.write_bytes(raw[:start] + b"\xff\x7f" + raw[start + 2 :])
        return
    place = external(folder, "model.embed_tokens.weight.scales")
    data = np.memmap(folder / "model.onnx.data", np.uint8, "r+")
    data[place][:4] = 0xFF, 0xFF, 0xFF, 0x7F


def drop_stop(folder: Path, _name: str) -> None:
    edit_json(folder / "generation_config.json", stop_strings=["<|im_end|>"])


def drop_end(folder: Path, _name: str) -> None:
    for file in folder.glob("*config.json"):
        file.write_text(re.sub(r",\s*299\b", "", file.read_text()))


def other_tokenizer(folder: Path, _name: str) -> None:
    path = folder / "tokenizer.json"
    description = json.loads(path.read_text())
    description["model"]["merges"] = description["model"]["merges"][1:]
    path.write_text(json.dumps(description))


def other_template(folder: Path, _name: str) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_start|>", "<|start|>"))


@pytest.mark.parametrize("name", ["mlx", "onnx"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip_scales, "model.layers.1.mlp.up_proj.weight"),
        (swap_tensors, "model.layers.0.mlp.up_proj.weight"),
        (poison_norm, "holds NaN or infinity"),
        (drop_stop, "the stop 'END OF STORY' does not end the answer"),
        (drop_end, "the token 299 ends answers of the source and not of the artifact"),
        (other_tokenizer, "the artifact's tokenizer makes other tokens"),
        (other_template, "the chat template 'default' writes"),
    ],
)
def test_a_damaged_folder_is_set_aside(
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: Callable[[Path, str], None],
    said: str,
) -> None:
    write = folder_formats.write_folder

    def damaging(source: Any, folder: Path, *rest: Any) -> Any:
        report = write(source, folder, *rest)
        damage(folder, name)
        return report

    monkeypatch.setattr(folders_module, "write_folder", damaging)
    target = "mlx:4bit" if name == "mlx" else "onnx:int4"
    made = f"tiny-{target.replace(':', '-')}"
    edit_json(checkpoint / "generation_config.json", eos_token_id=[2, 1, 299])
    assert convert(checkpoint, "--to", target, "--stop", "END OF STORY", *SHORT) == 1
    output = capsys.readouterr()
    assert f"tapster: {made}.rejected is not what its source was" in output.err
    assert "FAILED ITS PROOF" in output.out
    assert names(checkpoint.parent) == {"tiny", f"{made}.rejected", f"{made}.rejected.proof.json"}
    record = proof(checkpoint.parent, f"{made}.rejected")
    assert record["passed"] is False
    assert any(said in failure for failure in record["failures"])
    if damage is drop_stop:  # the next good one takes its place
        monkeypatch.undo()
        assert convert(checkpoint, "--to", target, *SHORT) == 0
        assert names(checkpoint.parent) == {"tiny", made, f"{made}.proof.json"}


def test_without_a_gguf_to_compare_with_the_reason_is_recorded(
    tiny_checkpoint: Callable[[str], TinyCheckpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Path(shutil.copytree(tiny_checkpoint("mistral").folder, tmp_path / "models" / "tiny"))
    edit_json(checkpoint / "config.json", sliding_window=16)
    assert "sliding_window" in refusal(capsys, checkpoint, "--to", "onnx:int4", "--to", "gguf:F16")
    assert names(checkpoint.parent) == {"tiny"}
    assert convert(checkpoint, "--to", "onnx:int4", *SHORT) == 0
    record = proof(checkpoint.parent, "tiny-onnx-int4")
    found = record["checks"]["divergence"]
    assert record["passed"]
    assert found["measured"] is False
    assert "llama.cpp cannot run the checkpoint to compare with" in found["reason"]


def test_a_format_that_cannot_hold_it_is_told_before_another_is_made(
    tiny_checkpoint: Callable[[str], TinyCheckpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_checkpoint("gemma3").folder
    said = refusal(capsys, folder, "--to", "mlx:4bit", "--to", "onnx:int4", "--out", tmp_path / "out")
    assert "Gemma3ForCausalLM" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["mlx:4bit", "onnx:int4"])
def test_only_what_is_ours_is_replaced(checkpoint: Path, capsys: pytest.CaptureFixture[str], target: str) -> None:
    made = checkpoint.parent / f"tiny-{target.replace(':', '-')}"
    options = ("--to", target, "--no-verify", "--quiet")
    assert convert(checkpoint, *options) == 0
    record = proof(checkpoint.parent, made.name)
    assert record["verified"] is False
    assert record["artifact"]["sha256"] is None
    assert not {"passed", "checks"} & set(record)
    assert "not verified" in capsys.readouterr().out
    assert "give --force" in refusal(capsys, checkpoint, *options)
    assert convert(checkpoint, *options, "--force") == 0
    (made / "notes.txt").write_text("mine")
    assert "notes.txt" in refusal(capsys, checkpoint, *options, "--force")
    assert (made / "notes.txt").read_text() == "mine"
    shutil.rmtree(made)
    made.write_text("mine")
    assert "it is a file and no folder" in refusal(capsys, checkpoint, *options, "--force")
    assert made.read_text() == "mine"


def test_a_gguf_file_goes_through_a_checkpoint(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, is_lossy in (("F16", False), ("Q8_0", True)):
        source = tmp_path / f"from-{kind}.gguf"
        assert convert(checkpoint, "--to", f"gguf:{kind}", "--out", source, "--no-sidecars", "--no-verify") == 0
        capsys.readouterr()
        assert convert(source, "--to", "onnx:int8", "--proof-tokens", 64, "--out", tmp_path / kind) == 0
        said = capsys.readouterr().err
        assert ("is quantized: what that has lost is lost" in said) == is_lossy
        assert proof(tmp_path, kind)["passed"]
        assert load_profile(tmp_path / kind).stop_strings == ("<|im_end|>",)


def test_clamped_values_and_fallbacks_are_told(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint / "model.safetensors")
    weights["model.embed_tokens.weight"][3, 5] = 1e5
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    assert "--clamp" in refusal(capsys, checkpoint, "--to", "onnx:fp16", "--quiet")
    assert names(checkpoint.parent) == {"tiny"}
    assert convert(checkpoint, "--to", "onnx:fp16", "--to", "mlx:4bit", "--clamp", *SHORT) == 0
    output = capsys.readouterr().out
    assert "1 values in 1 tensors were cut off" in output
    assert "2 tensors have rows that are no whole groups and are 4bit-g32 instead" in output
    assert "kB, mean KLD" in output
    assert proof(checkpoint.parent, "tiny-onnx-fp16")["checks"]["tensors"]["clamped"]


@pytest.mark.parametrize("target", ["mlx:4bit", "onnx:int4"])
def test_interrupted_it_leaves_nothing(demo_checkpoint: Path, tmp_path: Path, target: str) -> None:
    out = tmp_path / "out"
    command = [*TAPSTER, "convert", str(demo_checkpoint), "--to", target, "--out", str(out / "made")]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(out.glob(".tapster-*/made")) and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode in (130, -signal.SIGINT)  # the signal, if it came within an exec()
    assert "Traceback" not in said
    assert not out.exists()


@pytest.mark.parametrize("target", ["mlx:4bit", "onnx:int4"])
def test_a_full_disk_is_one_line(checkpoint: Path, tmp_path: Path, target: str) -> None:
    """A file-size limit fails the write as a full disk does: of the weights, and of a file beside them."""
    for limit in (50_000, 1_000):
        limited = (
            f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); import signal; "
        )
        limited += (
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from tapster.server.cli import main; sys.exit(main())"
        )
        command = [sys.executable, "-c", limited, "convert", str(checkpoint), "--to", target, "--out", str(tmp_path)]
        done = subprocess.run([*command, "--no-verify"], capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert "cannot write" in done.stderr
        assert "Traceback" not in done.stderr
        assert names(tmp_path) == {"models"}
