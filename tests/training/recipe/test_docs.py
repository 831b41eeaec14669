"""The recipes that the documentation shows."""

import re
from pathlib import Path

import pytest

from tapster.runtime.errors import ConfigError
from tapster.training.recipe.read import read_recipe

ROOT = Path(__file__).parents[3]
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, block in enumerate(re.findall(r"^```toml\n(.*?)^```", path.read_text("utf-8"), re.M | re.S))
]


def test_there_is_one() -> None:
    assert BLOCKS


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("block", BLOCKS)
def test_a_recipe_of_the_documentation_reads(block: str, small: bool, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(block, encoding="utf-8")
    if small and "[small" not in block:
        with pytest.raises(ConfigError, match="no small form"):
            read_recipe(str(path), small=True)
    else:
        assert read_recipe(str(path), small=small).stages
