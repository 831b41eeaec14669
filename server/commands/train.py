"""``tapster train``: a checkpoint from a recipe."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .recipe_options import (
    add_recipe_options,
    add_teacher_options,
    check_data,
    check_run,
    cost_before,
    folder_of,
    interrupt_on_signals,
    price_of,
    recipe_of,
    require_installed,
    say_cost,
    silence_libraries,
)

if TYPE_CHECKING:
    from ...training.recipe.schema import Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "recipe", metavar="RECIPE", nargs="?", help="a .toml file, the folder of a run, or a name that --list shows"
    )
    show = parser.add_argument_group("instead of training").add_mutually_exclusive_group()
    show.add_argument("--list", action="store_true", help="describe the recipes of the package")
    show.add_argument("--show", action="store_true", help="print the recipe with all values that hold, as TOML")
    show.add_argument("--dry-run", action="store_true", help="only estimate tokens, FLOP, memory and hours")
    change = parser.add_argument_group("the recipe")
    add_recipe_options(change)
    add_teacher_options(change)
    where = parser.add_argument_group("where to")
    where.add_argument(
        "--out", type=Path, metavar="DIR", help="the run's folder, in which it also goes on (default: runs/NAME)"
    )
    where.add_argument(
        "--force", action="store_true", help="begin anew instead of going on; a teacher's answers are kept"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """0 when the result is there. Raises TapsterError; KeyboardInterrupt after a checkpoint was saved."""
    if args.list:
        return _list(as_json=args.json)
    recipe = recipe_of(args)
    if args.show:
        return _show(recipe, as_json=args.json)
    require_installed()
    if args.dry_run:
        return _estimate(recipe, args)
    return _train(recipe, args)


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


def _estimate(recipe: "Recipe", args: argparse.Namespace) -> int:
    found = cost_before(recipe, quiet=args.quiet)
    if args.json:
        sys.stdout.write(json.dumps(found.to_json(), indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in found.lines()))
    return 0


def _train(recipe: "Recipe", args: argparse.Namespace) -> int:
    out, price = folder_of(recipe, args), price_of(args)
    if not args.force:
        check_run(recipe, out)
    check_data(recipe)

    from ...training.loop.run import train
    from ...training.loop.state import make_out
    from ...training.report.display import Silent, Terminal
    from .checkpoints import checkpoint_folder

    is_first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun or accelerate started
    if is_first:
        make_out(out)
    quiet = args.quiet or not is_first
    display = Silent() if quiet else Terminal()
    interrupt_on_signals()
    silence_libraries()

    def resolve_model(spec: str) -> Path:
        return checkpoint_folder(spec, quiet=quiet)

    if is_first:
        display.say(f"{out}: {'begins anew' if args.force else _going_on(out)}")
        say_cost(recipe, display, quiet=quiet)
    result = train(recipe, out, resolve_model=resolve_model, display=display, force=args.force, price=price)
    if is_first:
        sys.stdout.write((json.dumps(result.to_json(), indent=2) if args.json else str(result.model)) + "\n")
    return 0


def _going_on(out: Path) -> str:
    return "goes on" if (out / "recipe.toml").is_file() else "begins"
