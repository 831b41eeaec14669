"""Which recipes there are, and where."""

from difflib import get_close_matches
from pathlib import Path

from ...runtime.errors import ConfigError

FOLDER = Path(__file__).parent.parent / "recipes"


def recipe_names() -> list[str]:
    """Of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def recipe_file(name_or_path: str) -> Path:
    """The file of a recipe of the package, or at a path. ConfigError when there is none."""
    if name_or_path in recipe_names():
        return FOLDER / f"{name_or_path}.toml"
    path = Path(name_or_path).expanduser()
    if path.is_dir() and (path / "recipe.toml").is_file():  # the folder of a run
        return path / "recipe.toml"
    if path.is_file():
        return path
    raise ConfigError(f"{name_or_path} is no recipe: {_instead(name_or_path, path)}")


def _instead(name: str, path: Path) -> str:
    if path.is_dir():
        return "the folder has no recipe.toml, so it is not of a run of tapster train; give one, or a .toml file"
    if path.suffix == ".toml" or len(path.parts) > 1:
        return f"there is no file {path}"
    near = get_close_matches(name, recipe_names(), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}give a .toml file or one of {', '.join(recipe_names())}"
