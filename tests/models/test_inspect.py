"""``tapster inspect``, run as the command runs it."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_folders import write_folder, write_mlx, write_onnx_folder

from tapster.runtime.errors import ConfigError, ModelError
from tapster.runtime.profile import load_profile
from tapster.server.commands import inspect

WriteGGUF = Callable[..., Path]
Inspect = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Inspect:
    """What the command prints; it must succeed and leave standard error empty."""

    def run(*arguments: object) -> str:
        parser = argparse.ArgumentParser()
        inspect.add_arguments(parser)
        assert inspect.run(parser.parse_args([str(argument) for argument in arguments])) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        return printed.out

    return run


@pytest.fixture
def model(write_gguf: WriteGGUF) -> Path:
    weight = np.zeros((8, 32), np.float32)
    metadata = {"tapster.stop_strings": ["[/INST]"], "general.sampling.temp": 0.5}
    return write_gguf("a[red]b.gguf", metadata, tensors={"token_embd.weight": weight, "norm": weight[0]})


def test_json_has_the_profile_and_what_the_model_is_made_of(model: Path, run: Inspect) -> None:
    report: dict[str, Any] = json.loads(run(model, "--json"))
    profile = load_profile(model)
    assert list(report)[:2] == ["name", "path"]
    for field in profile.__dataclass_fields__:
        if field not in ("path", "sources"):
            assert report[field] == json.loads(json.dumps(getattr(profile, field)))
    assert (report["path"], report["files"]) == (str(model), [str(model)])
    assert report["sources"] == {**profile.sources, "vocabulary_size": "metadata key tokenizer.ggml.tokens"}
    assert (report["vocabulary_size"], report["bits_per_weight"]) == (8, 32.0)
    assert report["tensor_types"] == [
        {"type": "F32", "tensors": 2, "parameters": 288, "bytes": 1152, "bits_per_weight": 32.0}
    ]
    assert report["template_variables"] == {"default": []}


def test_text_shows_values_sources_and_that_nothing_is_wrong(model: Path, run: Inspect) -> None:
    lines = run(model).splitlines()
    assert lines[:2] == ["a[red]b", str(model)]
    assert lines[-1] == "Nothing is wrong with it."
    assert any(
        line.split() == ["stop", "strings", "'[/INST]'", "metadata", "key", "tapster.stop_strings"] for line in lines
    )
    assert any(line.split()[:4] == ["context", "length", "512", "tokens"] for line in lines)
    assert any(line.split() == ["temperature", "0.5", "metadata", "keys", "general.sampling.*"] for line in lines)
    assert any(line.split() == ["F32", "2", "288", "1,152", "32.0"] for line in lines)
    assert "\x1b" not in "".join(lines)


def test_tensor_types_come_largest_first_with_their_bits(write_gguf: WriteGGUF, run: Inspect) -> None:
    path = write_gguf(tensors={"norm": np.zeros(32, np.float32), "half": np.zeros((64, 32), np.float16)})
    rows = json.loads(run(path, "--json"))["tensor_types"]
    assert [(row["type"], row["bits_per_weight"]) for row in rows] == [("F16", 16.0), ("F32", 32.0)]


def test_problems_are_listed_and_do_not_fail(write_gguf: WriteGGUF, run: Inspect) -> None:
    template = "{{ messages[0].content }}<|end|>{{ tools }}"
    path = write_gguf(metadata={"tokenizer.chat_template": template})
    text = run(path)
    report = json.loads(run(path, "--json"))
    assert report["template_variables"] == {"default": ["tools"]}
    assert f"{len(template)} characters, reads tools" in text
    assert text.partition("What is wrong:\n")[2].splitlines() == [f"- {problem}" for problem in report["problems"]]
    assert len(report["problems"]) == 1


def test_a_vocabulary_without_tensors(write_gguf: WriteGGUF, run: Inspect) -> None:
    path = write_gguf(tensors={})
    report = json.loads(run(path, "--json"))
    assert (report["parameters"], report["bits_per_weight"], report["tensor_types"]) == (0, None, [])
    assert "bits per weight" not in run(path)


def test_control_characters_do_not_reach_the_terminal(write_gguf: WriteGGUF, run: Inspect) -> None:
    text = run(write_gguf(metadata={"general.architecture": "llama\x1b[2J\n"}))
    assert "llama\\x1b[2J\\n" in text
    assert "\x1b" not in text


def test_another_chat_template(demo_model: Path, run: Inspect) -> None:
    report = json.loads(run(demo_model, "--json", "--chat-template", "kodalite"))
    assert report["sources"]["chat_templates"] == "built-in template kodalite"
    assert report["end_of_turn"] == "<|end|>"
    (problem,) = report["problems"]
    assert problem.startswith("the end of turn '<|end|>' is not a single token")


def test_the_demo_model(demo_model: Path, run: Inspect) -> None:
    report = json.loads(run("demo", "--json"))
    assert (report["name"], report["problems"]) == ("SmolLM2-135M-Instruct.Q4_1", [])
    assert [(row["type"], row["tensors"]) for row in report["tensor_types"]] == [
        ("Q4_1", 210),
        ("Q8_0", 1),
        ("F32", 61),
    ]
    assert report["bits_per_weight"] == 5.744


def test_a_checkpoint_folder(tmp_path: Path, run: Inspect, model: Path) -> None:
    folder = write_folder(tmp_path / "small")
    report = json.loads(run(folder, "--json"))
    assert list(report) == list(json.loads(run(model, "--json")))
    assert (report["format"], report["path"], report["quantization"]) == ("hf", str(folder), None)
    assert report["files"] == [str(folder / "model.safetensors")]
    assert report["sources"]["vocabulary_size"] == "tokenizer.json"
    assert [(row["type"], row["tensors"], row["bits_per_weight"]) for row in report["tensor_types"]] == [
        ("BF16", 1, 16.0),
        ("F32", 1, 32.0),
    ]
    text = run(folder)
    assert text.endswith("Nothing is wrong with it.\n")
    assert any(line.split() == ["format", "hf"] for line in text.splitlines())


def test_an_mlx_folder_shows_bits_and_groups(tmp_path: Path, run: Inspect) -> None:
    report = json.loads(run(write_mlx(tmp_path), "--json"))
    assert report["quantization"] == {"mode": "affine", "bits": 4, "group_size": 32}
    rows = [(row["type"], row["parameters"], row["bits_per_weight"]) for row in report["tensor_types"]]
    assert rows == [("4bit-g32", 20480, 5.0), ("8bit-g64", 4096, 8.5), ("BF16", 64, 16.0)]
    assert "quantization" in (text := run(tmp_path))
    assert "mode affine, bits 4, group size 32" in text


def test_an_onnx_folder_shows_its_external_data(tmp_path: Path, run: Inspect) -> None:
    pytest.importorskip("onnx", reason="the onnx package writes the graph")
    report = json.loads(run(write_onnx_folder(tmp_path), "--json"))
    assert report["files"] == [str(tmp_path / name) for name in ("model.onnx", "model.onnx.data")]
    assert report["quantization"] == {"mode": "int", "bits": 4, "group_size": 32}
    assert [(row["type"], row["parameters"], row["bytes"]) for row in report["tensor_types"]] == [
        ("fp16", 4800, 9600),
        ("fp32", 16, 64 + 512),
        ("int4-g32", 512, 256 + 64),
    ]


def test_a_folder_without_a_tokenizer(tmp_path: Path, run: Inspect) -> None:
    folder = write_folder(tmp_path, tokenizer__json=None)
    report = json.loads(run(folder, "--json"))
    assert (report["vocabulary_size"], report["add_bos"], report["bos_id"]) == (None, None, None)
    assert "no tokenizer" in run(folder)


def test_errors_are_left_to_the_command_line(tmp_path: Path, model: Path, run: Inspect) -> None:
    (tmp_path / "text.gguf").write_text("this is a text, not a model")
    with pytest.raises(ModelError, match="is no GGUF file"):
        run(tmp_path / "text.gguf")
    with pytest.raises(ModelError, match="no such file"):
        run(tmp_path / "absent.gguf")
    with pytest.raises(ConfigError, match="did you mean chatml"):
        run(model, "--chat-template", "chatlm")


def test_importing_the_command_imports_nothing_heavy() -> None:
    code = (
        "import sys; from tapster.server.commands import inspect;"
        "heavy = {'rich', 'jinja2', 'numpy', 'gguf', 'llama_cpp', 'huggingface_hub'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
