"""MODEL@ENGINE, as it is typed."""

from pathlib import Path

import pytest

from tapster.runtime.errors import ConfigError
from tapster.server.compare.contender import Contender, labels, parse_contender, parse_contenders


@pytest.mark.parametrize(
    ("text", "model", "engine"),
    [
        ("demo", "demo", None),
        ("demo@llama.cpp", "demo", "llama.cpp"),
        ("org/name:Q4_K_M@llama.cpp", "org/name:Q4_K_M", "llama.cpp"),
        ("./a@b/model.gguf", "./a@b/model.gguf", None),
        ("./a@b/model@onnx", "./a@b/model", "onnx"),
        ("vllm://host:8000", "vllm://host:8000", None),
        ("@mlx", "@mlx", None),
    ],
)
def test_what_stands_before_the_last_at_is_the_model(text: str, model: str, engine: str | None) -> None:
    assert parse_contender(text) == Contender(model, engine)


def test_a_path_that_exists_is_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "model@mlx"
    folder.mkdir()
    assert parse_contender(str(folder)) == Contender(str(folder))
    assert parse_contender(f"{folder}@transformers") == Contender(str(folder), "transformers")


def test_an_engine_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match=r"demo@onx: there is no such file, and no engine is called 'onx', did you"):
        parse_contender("demo@onx")


def test_a_model_given_twice() -> None:
    assert len(parse_contenders(["demo", "demo@llama.cpp"])) == 2
    with pytest.raises(ConfigError, match="demo is given 2 times"):
        parse_contenders(["demo", "demo"])


def test_labels_are_short_where_that_is_clear(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "model").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    same = [Contender(str(tmp_path / name / "model")) for name in ("a", "b")]
    rest = [Contender(str(tmp_path / "other"), "mlx"), Contender("demo")]
    assert labels([*same, *rest]) == [same[0].model, same[1].model, "other@mlx", "demo"]
