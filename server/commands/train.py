"""``tapster train``: a checkpoint from a recipe."""

import argparse
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ...runtime.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...training.recipe.schema import Recipe
    from ...training.report.display import Display

_NEEDS = ("torch", "transformers", "accelerate", "datasets")
_RUNS = Path("runs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "recipe", metavar="RECIPE", nargs="?", help="a .toml file, the folder of a run, or a name that --list shows"
    )
    show = parser.add_argument_group("instead of training")
    show.add_argument("--list", action="store_true", help="describe the recipes of the package")
    show.add_argument("--show", action="store_true", help="print the recipe with all values that hold, as TOML")
    show.add_argument("--dry-run", action="store_true", help="only estimate tokens, FLOP, memory and hours")
    change = parser.add_argument_group("the recipe")
    change.add_argument("--small", action="store_true", help="its small form: a small model, minutes on a laptop")
    change.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="[STAGE=]SOURCE",
        help="train on this instead: a file or a folder (JSONL, JSON, Parquet, text), hub:ORG/NAME[:CONFIG][:SPLIT] or "
        "sample:NAME; repeatable",
    )
    change.add_argument("--teacher", metavar="URL", help="where an OpenAI-compatible server answers for the teacher")
    change.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a value, like stages.distil.steps=100 or stages.distil.objective.tea.weight=0; nothing after = "
        "takes it away; repeatable",
    )
    where = parser.add_argument_group("where to")
    where.add_argument(
        "--out", type=Path, metavar="DIR", help="the run's folder, in which it also goes on (default: runs/NAME)"
    )
    where.add_argument("--force", action="store_true", help="begin anew instead of going on")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """0 when the result is there. Raises TapsterError; KeyboardInterrupt after a checkpoint was saved."""
    if args.list:
        return _list(as_json=args.json)
    if args.recipe is None:
        raise ConfigError("give a RECIPE: a .toml file or a name that `tapster train --list` shows")
    recipe = _recipe(args)
    if args.show:
        return _show(recipe, as_json=args.json)
    _require_installed()
    if args.dry_run:
        return _estimate(recipe, args)
    return _train(recipe, args)


def _recipe(args: argparse.Namespace) -> "Recipe":
    from ...training.recipe.read import read_recipe

    overrides = [_override(text) for text in args.set]
    if args.teacher is not None:
        if read_recipe(args.recipe, small=args.small).teacher is None:
            raise ConfigError(f"--teacher {args.teacher}: the recipe {args.recipe} has no teacher")
        overrides.append(("teacher.endpoint", json.dumps(args.teacher)))
    return read_recipe(args.recipe, small=args.small, data=args.data, overrides=overrides)


def _override(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {text}: write KEY=VALUE, like stages.distil.steps=100")
    return key.strip(), value.strip()


def _out(recipe: "Recipe", args: argparse.Namespace) -> Path:
    """Where the run is: told, or the folder that was given as the recipe, or by the recipe's name."""
    if args.out is not None:
        return args.out
    if (Path(args.recipe) / "recipe.toml").is_file():
        return Path(args.recipe)
    return _RUNS / (f"{recipe.name}-small" if args.small else recipe.name)


def _list(*, as_json: bool) -> int:
    from ...training.recipe.find import recipe_names
    from ...training.recipe.read import read_recipe

    recipes = [read_recipe(name) for name in recipe_names()]
    if as_json:
        described = [recipe.model_dump(include={"name", "title", "card", "description"}) for recipe in recipes]
        sys.stdout.write(json.dumps(described, indent=2, ensure_ascii=False) + "\n")
        return 0
    for recipe in recipes:
        stages = " -> ".join(stage.name for stage in recipe.stages)
        about = "".join(f"  {line}\n" for line in recipe.description.strip().splitlines())
        sys.stdout.write(f"{recipe.name}: {recipe.title}\n{about}  stages: {stages}\n  {recipe.card or ''}\n\n")
    sys.stdout.write("tapster train NAME --small runs one on this machine.\n")
    return 0


def _show(recipe: "Recipe", *, as_json: bool) -> int:
    from ...training.recipe.resolved import to_toml

    values = recipe.model_dump_json(indent=2, exclude={"small"}, exclude_none=True) + "\n"
    sys.stdout.write(values if as_json else to_toml(recipe))
    return 0


def _require_installed() -> None:
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"training needs {' and '.join(missing)}: pip install 'tapster[train]'")


def _estimate(recipe: "Recipe", args: argparse.Namespace) -> int:
    from ...training.report.estimate import estimate

    found = estimate(recipe, resolve_model=lambda spec: _config_folder(spec, quiet=args.quiet))
    if args.json:
        sys.stdout.write(json.dumps(found.to_json(), indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in found.lines()))
    return 0


def _config_folder(spec: str, *, quiet: bool) -> Path:
    """A folder with the model's config.json; weights of models on the Hub are not fetched for it."""
    from ...runtime.hub import fetch_small_files
    from ...runtime.resolve import is_hub_name
    from .checkpoints import checkpoint_folder

    if is_hub_name(spec) and ":" not in spec and not Path(spec).exists():
        return fetch_small_files(spec, progress=not quiet)
    return checkpoint_folder(spec, quiet=quiet)


def _train(recipe: "Recipe", args: argparse.Namespace) -> int:
    from ...training.loop.run import train
    from ...training.report.display import Silent, Terminal
    from .checkpoints import checkpoint_folder

    is_first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun or accelerate started
    quiet = args.quiet or not is_first
    display = Silent() if quiet else Terminal()
    out = _out(recipe, args)
    _interrupt_on(signal.SIGTERM)
    _silence_libraries()

    def resolve_model(spec: str) -> Path:
        return checkpoint_folder(spec, quiet=quiet)

    if not quiet:
        display.say(f"{out}: {_going_on(out) if not args.force else 'begins anew'}")
        _say_cost(recipe, resolve_model, display)
    result = train(recipe, out, resolve_model=resolve_model, display=display, force=args.force)
    if is_first:
        sys.stdout.write((json.dumps(result.to_json(), indent=2) if args.json else str(result.model)) + "\n")
    return 0


def _going_on(out: Path) -> str:
    return "goes on" if (out / "recipe.toml").is_file() else "begins"


def _say_cost(recipe: "Recipe", resolve_model: "Callable[[str], Path]", display: "Display") -> None:
    """The estimate; training does not depend on it."""
    from ...training.report.estimate import estimate

    try:
        found = estimate(recipe, resolve_model=resolve_model, processes=int(os.environ.get("WORLD_SIZE", "1")))
    except ModelError as error:
        display.say(f"no estimate: {error}")
        return
    for line in found.lines():
        display.say(line)


def _silence_libraries() -> None:
    """Their bars and hints: what a user should know of a run is said by it."""
    import warnings

    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)


def _interrupt_on(number: int) -> None:
    """The signal raises KeyboardInterrupt, so that what was started is ended; not where it is ignored."""
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler)
