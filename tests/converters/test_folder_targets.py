"""What ``tapster convert`` says of MLX and ONNX targets that it cannot make, before anything is written."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from convert_command import names, refusal

from tapster.converters.targets import Target, parse_targets

pytestmark = pytest.mark.usefixtures("own_signals")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("mlx:4bit", Target("mlx", "4bit")),
        ("mlx:4", Target("mlx", "4bit")),
        ("mlx:MXFP4", Target("mlx", "mxfp4")),
        ("onnx:INT4", Target("onnx", "int4")),
    ],
)
def test_targets_in_any_case(text: str, target: Target) -> None:
    assert parse_targets([text, text]) == (target,)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "4bit"], "did you mean mlx:4bit?"),
        (["--to", "int4"], "did you mean onnx:int4?"),
        (["--to", "onx:int4"], "did you mean 'onnx'?"),
        (["--to", "mlx:q4"], "no MLX type is called 'q4'"),
        (["--to", "mlx:4bits"], "did you mean 4bit?"),
        (["--to", "onnx:fp8"], "no ONNX type is called 'fp8'; types are fp32, fp16, int8, int4"),
        (["--to", "mlx"], "for example mlx:4bit"),
        (["--to", "onnx"], "for example onnx:int4"),
        (["--to", "gguf:F16", "--group-size", "64"], "--group-size has no effect on gguf:F16"),
        (["--to", "mlx:4bit", "--group-size", "16"], "mlx:4bit has groups of 32 or 64 or 128"),
        (["--to", "mlx:mxfp4", "--group-size", "64"], "mlx:mxfp4 has groups of 32"),
        (["--to", "mlx:bf16", "--group-size", "64"], "no effect on mlx:bf16"),
        (["--to", "onnx:int4", "--group-size", "64"], "32 or 128"),
        (["--to", "onnx:fp16", "--group-size", "32"], "onnx:fp16 has no groups"),
        (["--to", "mlx:4bit", "--to", "onnx:int4", "--group-size", "64"], "32 or 128"),
        (["--to", "onnx:fp16", "--int4-method", "rtn"], "--int4-method has no effect on onnx:fp16"),
        (["--to", "onnx:int4", "--int4-method", "awq"], "rtn or k-quant"),
        (["--to", "mlx:4bit", "--int4-method", "rtn"], "--int4-method has no effect on mlx:4bit"),
        (["--to", "mlx:4bit", "--publish", "x"], "--publish has no effect on mlx:4bit"),
        (["--to", "mlx:4bit", "--imatrix", "auto"], "--imatrix has no effect on mlx:4bit"),
        (["--to", "onnx:int4", "--tensor-type", "a=Q8_0"], "--tensor-type has no effect on onnx:int4"),
        (["--to", "mlx:4bit", "--clamp"], "--clamp has no effect on mlx:4bit"),
        (["--to", "mlx:4bit", "--proof-text", "nowhere.txt"], "nowhere.txt"),
        (["--to", "mlx:4bit", "--out", "model.gguf"], "mlx:4bit is a folder"),
    ],
)
def test_refusals_say_what_to_do_and_leave_nothing(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in refusal(capsys, checkpoint, *arguments)
    assert names(checkpoint.parent) == {"tiny"}


@pytest.mark.parametrize(
    ("target", "missing", "options", "said"),
    [
        ("mlx:4bit", "mlx_lm", (), "pip install 'tapster[mlx]'"),
        ("mlx:4bit", "mlx", ("--no-verify",), "pip install 'tapster[mlx]'"),
        ("onnx:int4", "onnx_ir", (), "pip install 'tapster[onnx]'"),
        ("onnx:int4", "onnxruntime", (), "pip install 'tapster[onnx]'; or give --no-verify"),
    ],
)
def test_a_missing_extra_is_named_before_anything_is_written(
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
    missing: str,
    options: tuple[str, ...],
    said: str,
) -> None:
    find_spec = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == missing else find_spec(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    line = refusal(capsys, checkpoint, "--to", "gguf:F16", "--to", target, *options)
    assert said in line
    assert f"needs {missing}, which is not installed" in line
    assert names(checkpoint.parent) == {"tiny"}
