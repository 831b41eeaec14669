"""``tapster bench``: measure an OpenAI-compatible server, or a model in a server started for it."""

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...runtime.errors import ConfigError
from ..bench.engine_options import ENGINE_BENCHES, EngineBenchOptions, parse_engines, vllm_python
from ..bench.options import SCENARIOS, BenchOptions

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Coroutine

    from rich.console import Console

    from ..bench.results import BenchResult

Result = TypeVar("Result")
_INTERRUPTED, _TERMINATED = 130, 143
_PLAIN_WIDTH = 150


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = BenchOptions()
    parser.add_argument(
        "what",
        metavar="MODEL|URL",
        nargs="?",
        default=defaults.what,
        help="a model to serve, or where a server is",
    )
    parser.add_argument(
        "--scenario",
        action="append",
        choices=SCENARIOS,
        metavar="NAME",
        help=f"one of {', '.join(SCENARIOS)}; may be repeated (default: all)",
    )
    parser.add_argument("--repeat", type=int, default=defaults.repeat, metavar="N", help="runs of each scenario")
    parser.add_argument("--seed", type=int, metavar="N", help="makes the prompts (default: a new one each time)")
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=defaults.timeout_s,
        metavar="S",
        help="seconds that one run may take",
    )
    parser.add_argument("--json", metavar="FILE", help="also write everything as JSON; - is standard output")
    _add_yardsticks(parser.add_argument_group("beside the server"))
    _add_other_measurements(parser.add_argument_group("something else instead"))
    _add_server(parser.add_argument_group("how it is asked"))


def _add_yardsticks(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--ceiling", action="store_true", help="also replay the same loads without a server, as a yardstick"
    )
    group.add_argument(
        "--ceiling-model", metavar="MODEL", help="the same for a URL: the model that it serves, as a file"
    )
    group.add_argument(
        "--replay-threads",
        type=int,
        metavar="N",
        help="threads of the raw replay, and of both sides of --engines (default: all physical cores that may be used)",
    )
    group.add_argument(
        "--contended",
        action="store_true",
        help="also compare numbers of threads, with a core free and with it busy",
    )


def _add_other_measurements(group: "argparse._ArgumentGroup") -> None:
    instead = group.add_mutually_exclusive_group()
    instead.add_argument(
        "--conversion", action="store_true", help="measure how fast the model is converted instead of how it is served"
    )
    instead.add_argument(
        "--training",
        action="store_true",
        help="measure training instead: steps against TRL's, losses against plain ones, a teacher's cache",
    )
    instead.add_argument(
        "--engines",
        metavar="NAMES",
        help=f"measure the engines against the programs they should equal: all, or some of {','.join(ENGINE_BENCHES)}",
    )
    group.add_argument(
        "--vllm-url",
        metavar="URL",
        help="a running vLLM for --engines (default: one is started with the Python in TAPSTER_VLLM_PYTHON)",
    )


def _add_server(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--chat", action="store_true", help="send every prompt as a chat, for a server without completions"
    )
    group.add_argument("--model", metavar="ID", help="the model to ask for (default: the first that the server lists)")
    group.add_argument(
        "--api-key",
        metavar="KEY",
        help="the server's key (also TAPSTER_API_KEY, which does not show in the process list)",
    )
    group.add_argument("--serve-args", default="", metavar="ARGS", help="more options for the server started here")


def run(args: argparse.Namespace) -> int:
    """0 when it came to its end, whatever the bars say and the notes; 130 after Ctrl-C. Raises TapsterError."""
    options = _options(args)
    _check_json_file(args.json)
    if args.vllm_url and args.engines is None:
        raise ConfigError("--vllm-url is for --engines")
    if args.conversion:
        return _run_conversion(options, args.json)
    if args.training:
        return _run_training(options, args.json)
    if args.engines is not None:
        return _run_engines(_engine_options(args, options), args.json)
    from ..bench.benchmark import benchmark

    path = _model_path(options.ceiling_model if options.is_url else options.what)
    status, result = _run_async(benchmark(options, path, _say))
    if result is not None:
        _write(result, args.json)
    return status


def _engine_options(args: argparse.Namespace, options: BenchOptions) -> EngineBenchOptions:
    return EngineBenchOptions(
        what=options.what,
        names=parse_engines(args.engines),
        repeat=options.repeat,
        threads=options.replay_threads,
        vllm_url=args.vllm_url,
        vllm_python=vllm_python(),
        timeout_s=options.timeout_s,
        seed=options.seed,
    )


def _run_engines(options: EngineBenchOptions, json_file: str | None) -> int:
    from ..bench.conversion_report import print_rows, rows_to_json
    from ..bench.engines import EngineReport, measure_engines

    report = EngineReport()
    status, _ = _run_async(measure_engines(options, report, _say))
    if status:
        report.notes.append("ended early: this is what was measured so far")
    print_rows(report.rows, _console(json_file), "engines", report.notes)
    _write_json(rows_to_json(report.rows, "engines", report.notes), json_file)
    return status


def _run_conversion(options: BenchOptions, json_file: str | None) -> int:
    from ..bench.conversion import measure_conversion
    from ..bench.conversion_report import print_rows, rows_to_json

    path = _model_path(options.what)
    assert path is not None
    try:
        rows = measure_conversion(path, repeat=options.repeat, say=_say)
    finally:
        _say("")
    print_rows(rows, _console(json_file))
    _write_json(rows_to_json(rows), json_file)
    return 0


def _run_training(options: BenchOptions, json_file: str | None) -> int:
    from ...runtime.models import find_model
    from ..bench.conversion_report import print_rows, rows_to_json
    from ..bench.engines import EngineReport
    from ..bench.training import measure_training
    from .recipe_options import require_installed

    if options.is_url:
        raise ConfigError("--training trains a model: give a MODEL, not a URL")
    require_installed()
    find_model(options.what)
    report = EngineReport()
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))  # children are ended on the way out
    status = 0
    try:
        measure_training(options.what, report, repeat=options.repeat, say=_say)
    except (KeyboardInterrupt, SystemExit) as stopped:
        status = _TERMINATED if isinstance(stopped, SystemExit) else _INTERRUPTED
        report.notes.append("ended early: this is what was measured so far")
    finally:
        signal.signal(signal.SIGTERM, before)
        _say("")
    print_rows(report.rows, _console(json_file), "training", report.notes)
    _write_json(rows_to_json(report.rows, "training", report.notes), json_file)
    return status


def _check_json_file(json_file: str | None) -> None:
    if json_file not in (None, "-") and not Path(json_file).absolute().parent.is_dir():
        raise ConfigError(f"--json {json_file}: there is no folder {Path(json_file).absolute().parent}")


def _options(args: argparse.Namespace) -> BenchOptions:
    given = {} if args.seed is None else {"seed": args.seed}
    try:
        serve_args = tuple(shlex.split(args.serve_args))
    except ValueError as error:
        raise ConfigError(f"--serve-args {args.serve_args!r} cannot be split into words: {error}") from None
    return BenchOptions(
        what=args.what,
        scenarios=tuple(dict.fromkeys(args.scenario)) if args.scenario else tuple(SCENARIOS),
        repeat=args.repeat,
        has_ceiling=args.ceiling,
        ceiling_model=args.ceiling_model,
        is_contended=args.contended,
        is_chat=args.chat,
        replay_threads=args.replay_threads,
        model_id=args.model,
        api_key=args.api_key or os.environ.get("TAPSTER_API_KEY"),
        serve_args=serve_args,
        timeout_s=args.timeout_s,
        **given,
    )


def _run_async(work: "Coroutine[Any, Any, Result]") -> "tuple[int, Result | None]":
    """The exit status and the result, None after a signal. Children are gone in either case."""
    import asyncio

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return 0, runner.run(_until_sigterm(work))
    except KeyboardInterrupt:
        return _INTERRUPTED, None
    except asyncio.CancelledError:
        return _TERMINATED, None
    finally:
        _say("")


def _model_path(model: str | None) -> Path | None:
    """The model's file, downloaded now if it has to be, so that no clock runs meanwhile."""
    from ...runtime.resolve import resolve_model

    return None if model is None else resolve_model(model)


async def _until_sigterm(work: "Coroutine[Any, Any, Result]") -> "Result":
    """Run ``work``; SIGTERM cancels it, so that it ends what it started."""
    import asyncio

    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


def _loop_factory() -> "Callable[[], AbstractEventLoop] | None":
    """uvloop where there is one: a third of the CPU time for every event received."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _say(text: str) -> None:
    """What is going on, in one line that the next replaces; nothing when nobody watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()


def _write(result: "BenchResult", json_file: str | None) -> None:
    from ..bench.report import print_report, to_json

    print_report(result, _console(json_file))
    _write_json(to_json(result), json_file)


def _console(json_file: str | None) -> "Console":
    from rich.console import Console

    console = Console(stderr=json_file == "-", highlight=False)
    if console.is_terminal:
        return console
    return Console(stderr=json_file == "-", highlight=False, width=_PLAIN_WIDTH)


def _write_json(text: str, json_file: str | None) -> None:
    if json_file == "-":
        sys.stdout.write(text + "\n")
    elif json_file is not None:
        Path(json_file).write_text(text + "\n", encoding="utf-8")
