"""What ``tapster train`` and ``tapster pipeline`` have in common: the recipe, and where its run is."""

import argparse
import importlib.util
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.errors import ConfigError, ConversionError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...converters.targets import Target
    from ...training.recipe.schema import Recipe
    from ...training.report.display import Display
    from ...training.report.estimate import Estimate
    from ...training.teacher.progress import Price

RUNS = Path("runs")
EXAMPLES = ("stages.distil.optimizer.lr=1e-5", "stages.distil.objective.tea.weight=0")
"""Changes of dante."""
_NEEDS = ("torch", "transformers", "accelerate", "datasets", "peft", "filelock", "httpx")


def add_recipe_options(group: Any) -> None:
    """How a recipe is changed."""
    group.add_argument("--small", action="store_true", help="its small form: a small model, minutes on a laptop")
    group.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="[STAGE=]SOURCE",
        help="train on this instead: a file or a folder (JSONL, JSON, Parquet, text), hub:ORG/NAME[:CONFIG][:SPLIT] or "
        "sample:NAME; repeatable",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"change a value, like {EXAMPLES[0]} or {EXAMPLES[1]}; nothing after = takes it away; repeatable",
    )


def add_teacher_options(group: Any) -> None:
    """Who is asked, and what that costs."""
    group.add_argument("--teacher", metavar="URL", help="where an OpenAI-compatible server answers for the teacher")
    group.add_argument(
        "--price",
        metavar="IN,OUT",
        help="what a million tokens of prompts and of the teacher's answers cost, such as 0.5,1.5: the progress then "
        "shows the sum",
    )


def recipe_of(args: argparse.Namespace) -> "Recipe":
    """The recipe with its changes. ConfigError says what is wrong with either."""
    from ...training.recipe.read import read_recipe

    if args.recipe is None:
        raise ConfigError("give a RECIPE: a .toml file or a name that `tapster train --list` shows")
    overrides = [_override(text) for text in args.set]
    if args.teacher == "":
        raise ConfigError("--teacher is empty: give a base URL like http://127.0.0.1:8000/v1")
    if args.teacher is not None or args.price is not None:
        _require_teacher(args)
    if args.teacher is not None:
        overrides.append(("teacher.endpoint", json.dumps(args.teacher)))
    recipe = read_recipe(args.recipe, small=args.small, data=args.data, overrides=overrides)
    check_targets(recipe.convert, f"{args.recipe}: convert")
    return recipe


def _require_teacher(args: argparse.Namespace) -> None:
    from ...training.recipe.read import read_recipe

    option, value = ("--teacher", args.teacher) if args.teacher is not None else ("--price", args.price)
    teacher = read_recipe(args.recipe, small=args.small).teacher
    if teacher is None:
        raise ConfigError(f"{option} {value}: the recipe {args.recipe} has no teacher")
    if teacher.kind == "online":
        raise ConfigError(
            f"{option} {value}: the teacher of {args.recipe} is in memory and is not asked over a network"
        )


def _override(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {text}: write KEY=VALUE, like {EXAMPLES[0]}")
    return key.strip(), value.strip()


def check_targets(texts: "Sequence[str]", where: str) -> "tuple[Target, ...]":
    """What a result is to become: a misspelt type would be found only after the training."""
    from ...converters.targets import parse_targets

    try:
        targets = parse_targets(texts)
    except ConversionError as error:
        raise ConfigError(f"{where}: {str(error).removeprefix('--to ')}") from None
    if any(target.format == "hf" for target in targets):
        raise ConfigError(f"{where}: the result of training is a Hugging Face folder already: leave out hf")
    return targets


def price_of(args: argparse.Namespace) -> "Price | None":
    from ...training.teacher.progress import Price

    return None if args.price is None else Price.read(args.price)


def folder_of(recipe: "Recipe", args: argparse.Namespace) -> Path:
    """Where the run is: told, or the folder whose recipe was given, or by the recipe's name."""
    from ...training.loop.state import FILE
    from ...training.recipe.find import recipe_file

    if args.out is not None:
        return args.out.expanduser()
    file = recipe_file(args.recipe)
    if file.name == "recipe.toml" and (file.parent / FILE).is_file():
        return file.parent
    return RUNS / (f"{recipe.name}-small" if args.small else recipe.name)


def check_data(recipe: "Recipe") -> None:
    """ConfigError for data that are not there, before anything is loaded for them."""
    from ...training.data.files import data_files
    from ...training.data.sources import open_source

    for source in dict.fromkeys(one for stage in recipe.stages for one in (*stage.data.train, *stage.data.eval)):
        if source.startswith("sample:"):
            open_source(source)
        elif source != "teacher" and not source.startswith("hub:"):
            data_files(Path(source).expanduser(), source)


def check_run(recipe: "Recipe", out: Path) -> None:
    """ConfigError where the folder's run was not begun with this recipe."""
    from ...training.loop.state import State, check_out, dependencies
    from ..pipeline.inputs import changed_settings

    check_out(out)
    state = State(out)
    for stage, (name, depends) in zip(recipe.stages, dependencies(recipe).items(), strict=True):
        if state.depends(name) not in (None, depends) and (changed := changed_settings(out, recipe, stage)):
            raise ConfigError(
                f"{out}: the stage {stage.name} was begun with other settings ({', '.join(changed)}); undo the change, "
                "give another --out, begin anew with --force, or let tapster pipeline train what has changed"
            )
    state.check(dependencies(recipe))


def require_installed() -> None:
    """ConfigError where what training needs is not there."""
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"training needs {' and '.join(missing)}: pip install 'tapster[train]'")


def cost_before(recipe: "Recipe", *, quiet: bool) -> "Estimate":
    """The estimate, for which weights and data on the Hub are not fetched. ConfigError for data that are not here."""
    from ...training.report.estimate import estimate

    check_data(recipe)
    return estimate(recipe, resolve_model=lambda spec: _config_folder(spec, quiet=quiet), rows=_rows(recipe))


def _rows(recipe: "Recipe") -> dict[str, int]:
    """Of the stages whose length depends on them."""
    from ...training.data.count import rows_of

    found = {stage.name: rows_of(stage.data) for stage in recipe.stages if stage.epochs is not None}
    return {name: count for name, count in found.items() if count is not None}


def _config_folder(spec: str, *, quiet: bool) -> Path:
    """A folder with the model's config.json."""
    from ...runtime.hub import fetch_small_files
    from ...runtime.resolve import is_hub_name
    from .checkpoints import checkpoint_folder

    if is_hub_name(spec) and ":" not in spec and not Path(spec).exists():
        return fetch_small_files(spec, progress=not quiet)
    return checkpoint_folder(spec, quiet=quiet)


def say_cost(recipe: "Recipe", display: "Display", *, quiet: bool) -> None:
    """The estimate; training does not depend on it. ConfigError for what cannot be trained."""
    from ...training.report.estimate import estimate
    from .checkpoints import checkpoint_folder

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    try:
        found = estimate(
            recipe,
            resolve_model=lambda spec: checkpoint_folder(spec, quiet=quiet),
            rows=_rows(recipe),
            processes=processes,
        )
    except ModelError as error:
        display.say(f"no estimate: {error}")
        return
    for line in found.lines():
        display.say(line)


def silence_libraries() -> None:
    """Their bars and hints: what a user should know of a run is said by it."""
    import warnings

    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)


def interrupt_on_signals() -> None:
    """SIGTERM and a terminal that closes raise KeyboardInterrupt, so that what was started is ended; not where they are
    ignored."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
