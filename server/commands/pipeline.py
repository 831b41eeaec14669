"""``tapster pipeline``: from a recipe to a served model."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ...runtime.errors import ConfigError, ModelError
from .recipe_options import (
    add_recipe_options,
    add_teacher_options,
    check_data,
    check_targets,
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
    from ...training.report.estimate import Estimate
    from ..pipeline.run import Pipeline
    from ..pipeline.serve import Serving
    from ..pipeline.step import Job

_STEPS = ("teacher", "train", "convert")
_LAST_PORT = 65535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        nargs="?",
        help="a .toml file, a name that `tapster train --list` shows, or the folder of a run, which goes on",
    )
    change = parser.add_argument_group("the recipe")
    add_recipe_options(change)
    change.add_argument(
        "--to",
        action="append",
        default=[],
        metavar="FORMAT:TYPE",
        help="what to make of the result instead of what the recipe says: gguf:Q4_K_M, gguf:all, mlx:4bit, onnx:int4; "
        "repeatable",
    )
    add_teacher_options(change)
    steps = parser.add_argument_group(
        "the steps",
        "teacher, train, convert, prove, serve: each is done when its result is not there or what it "
        "depends on has changed",
    )
    steps.add_argument("--dry-run", action="store_true", help="only show which steps will run, why, and their cost")
    again = steps.add_mutually_exclusive_group()
    again.add_argument("--from", dest="start", choices=_STEPS, metavar="STEP", help="run this step and those after it")
    again.add_argument(
        "--force", action="store_true", help="run all steps again; a teacher's answers that hold are kept"
    )
    where = parser.add_argument_group("where to")
    where.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: runs/NAME)")
    _add_serving(parser.add_argument_group("serving"))
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _add_serving(group: "argparse._ArgumentGroup") -> None:
    which = group.add_mutually_exclusive_group()
    which.add_argument("--no-serve", action="store_true", help="end when everything is made")
    which.add_argument(
        "--serve",
        metavar="FORMAT:TYPE",
        help="which artifact (default: the smallest GGUF file that lost little, "
        "or the first artifact where there is none, or else the checkpoint)",
    )
    group.add_argument("--host", metavar="HOST", help="address to listen on (default: 127.0.0.1)")
    group.add_argument("--port", type=int, metavar="N", help="port to listen on (default: 8000); 0 takes a free one")
    group.add_argument("--no-page", action="store_true", help="do not serve the chat page")


def run(args: argparse.Namespace) -> int:
    """Serves in the end, and then does not return; 0 without that. Raises TapsterError and KeyboardInterrupt."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "a pipeline is one process: train with `torchrun … tapster train`, then run tapster pipeline in the same "
            "--out, which goes on with what follows"
        )
    recipe = recipe_of(args)
    recipe = recipe.model_copy(update={"convert": args.to}) if args.to else recipe
    job = _job(recipe, args)
    serving = _serving(job, args)

    from ..pipeline.run import Pipeline

    pipeline = Pipeline(job)
    if args.dry_run:
        return _dry_run(pipeline, serving, args)
    return _run(pipeline, serving, args)


def _job(recipe: "Recipe", args: argparse.Namespace) -> "Job":
    from ...training.report.display import Silent, Terminal
    from ..pipeline.record import Record
    from ..pipeline.step import NAMES, Job
    from .checkpoints import checkpoint_folder

    out = folder_of(recipe, args)
    first = 0 if args.force else NAMES.index(args.start) if args.start else len(NAMES)
    return Job(
        recipe=recipe,
        out=out,
        targets=check_targets(recipe.convert, "--to"),
        resolve_model=lambda spec: checkpoint_folder(spec, quiet=args.quiet),
        display=Silent() if args.quiet else Terminal(),
        record=Record(out),
        quiet=args.quiet,
        price=price_of(args),
        again=frozenset(NAMES[first:]),
    )


def _serving(job: "Job", args: argparse.Namespace) -> "Serving":
    from ..pipeline.serve import Serving, chosen_target

    if args.port is not None and not 0 <= args.port <= _LAST_PORT:
        raise ConfigError(f"--port {args.port}: a port is a number from 0 to {_LAST_PORT}")
    host = ["--host", args.host] if args.host is not None else []
    port = ["--port", str(args.port)] if args.port is not None else []
    page = ["--no-page"] if args.no_page else []
    if args.no_serve and (given := [*host, *port, *page]):
        raise ConfigError(f"{given[0]} has no effect with --no-serve")
    return Serving(not args.no_serve, chosen_target(args.serve, job.targets), (*host, *port, *page))


def _dry_run(pipeline: "Pipeline", serving: "Serving", args: argparse.Namespace) -> int:
    from ..pipeline.report import plan_json, plan_lines

    plan, out = {**pipeline.plan(), "serve": serving.verdict(pipeline.job)}, pipeline.job.out
    cost = _cost(pipeline, args) if plan["train"].runs else None
    if args.json:
        sys.stdout.write(plan_json(out, plan, cost and cost.to_json()) + "\n")
        return 0
    lines = [f"{pipeline.job.recipe.name} in {out}", *plan_lines(plan)]
    if cost is not None:
        lines += ["training", *(f"  {line}" for line in cost.lines())]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _cost(pipeline: "Pipeline", args: argparse.Namespace) -> "Estimate | None":
    require_installed()
    try:
        return cost_before(pipeline.job.recipe, quiet=args.quiet)
    except ModelError as error:
        pipeline.job.display.say(f"no estimate: {error}")
        return None


def _run(pipeline: "Pipeline", serving: "Serving", args: argparse.Namespace) -> int:
    from ...training.loop.state import alone_in
    from ..pipeline.report import plan_lines

    job, plan = pipeline.job, pipeline.plan()
    for line in [f"{job.recipe.name} in {job.out}", *plan_lines({**plan, "serve": serving.verdict(job)})]:
        job.display.say(line)
    interrupt_on_signals()
    if plan["teacher"].runs or plan["train"].runs:
        require_installed()
        check_data(job.recipe)
        silence_libraries()
        say_cost(job.recipe, job.display, quiet=job.quiet)
    if plan["convert"].runs:
        _require_converters(job)
    with alone_in(job.out):
        pipeline.run()
    model = _report(pipeline, serving, args)
    if serving.is_wanted:
        serving.start(model)
    return 0


def _require_converters(job: "Job") -> None:
    """Before hours of training, not after."""
    from ...converters.folder_formats import require_installed as require_formats
    from ...converters.targets import FOLDER_FORMATS

    require_formats([target for target in job.targets if target.format in FOLDER_FORMATS], verify=True)


def _report(pipeline: "Pipeline", serving: "Serving", args: argparse.Namespace) -> Path:
    """Say what was done and made. The path of what is to be served."""
    from ..pipeline.report import artifact_lines, command_line, stage_lines, step_lines, to_json
    from ..pipeline.serve import to_serve
    from ..pipeline.train import trained

    job, made = pipeline.job, pipeline.artifacts()
    stages, model = trained(job), to_serve(made, serving.target, job.model)
    command = serving.command(model)
    if args.json:
        sys.stdout.write(to_json(job.out, pipeline.done, stages, made, command) + "\n")
        return model
    parts = [
        step_lines(pipeline.done),
        stage_lines(stages, job.recipe),
        artifact_lines(made),
        [f"  {command_line(command)}"],
    ]
    sys.stdout.write("\n\n".join("\n".join(part) for part in parts if part) + "\n")
    return model
