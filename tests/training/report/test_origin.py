"""What models are called where nobody has this machine."""

from pathlib import Path

import pytest

from tapster.training.report.origin import Origin, origin_of


@pytest.mark.parametrize(
    ("spec", "origin"),
    [
        ("demo", Origin("HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct", "Q4_1")),
        ("org/name", Origin("org/name", "org/name")),
        ("org/name:Q4_K_M", Origin("org/name", "org/name", "Q4_K_M")),
        ("/gone/model.gguf", Origin("model.gguf")),
    ],
)
def test_a_name_that_others_know(spec: str, origin: Origin) -> None:
    assert origin_of(spec) == origin


def test_a_folder_has_the_last_part_of_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert origin_of(str(tmp_path / "mine")) == Origin("mine")
