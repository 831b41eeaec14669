"""``tapster compare``: which artifact on which engine to run on this machine."""

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.errors import ConfigError
from ..compare.options import CHART_ENDINGS, CompareOptions

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ..compare.results import CompareResult

_FAILED, _INTERRUPTED, _TERMINATED = 1, 130, 143
_PLAIN_WIDTH = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    defaults = CompareOptions(contenders=())
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL[@ENGINE]",
        help="what tapster serve takes, and the engine that is to run it (default: the one for its format)",
    )
    parser.add_argument("--repeat", type=int, default=defaults.repeat, metavar="N", help="rounds, each in a new server")
    parser.add_argument(
        "--prompt-tokens", type=int, default=defaults.prompt_tokens, metavar="N", help="tokens that prefill is timed on"
    )
    parser.add_argument(
        "--tokens", type=int, default=defaults.new_tokens, metavar="N", help="new tokens of each timed answer"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads of every engine (default: its own choice)")
    parser.add_argument("--context", type=int, metavar="N", help="tokens a conversation may have (default: its own)")
    parser.add_argument(
        "--timeout-s", type=float, default=defaults.timeout_s, metavar="S", help="seconds a server may take to be ready"
    )
    loss = parser.add_argument_group("what each lost")
    loss.add_argument(
        "--source",
        metavar="MODEL[@ENGINE]",
        help="the model that the others are measured against (default: the largest unquantized one given)",
    )
    loss.add_argument(
        "--max-kld", type=float, default=defaults.max_kld, metavar="NATS", help="recommend none that is further off"
    )
    loss.add_argument(
        "--kld-tokens", type=int, default=defaults.kld_tokens, metavar="N", help="how much text to measure it on"
    )
    loss.add_argument("--no-kld", action="store_true", help="measure speeds and memory only")
    out = parser.add_argument_group("output")
    out.add_argument("--chart", type=Path, metavar="FILE", help=f"draw it too ({', '.join(CHART_ENDINGS)})")
    out.add_argument("--json", metavar="FILE", help="also write everything as JSON; - is standard output")


def run(args: argparse.Namespace) -> int:
    """0 when every model ran, 1 when one did not, 130 after Ctrl-C: what was measured is printed in any case."""
    options = _options(args)
    _check_output(options, args.json)
    from ..compare.compare import settings
    from ..compare.results import CompareResult

    result = CompareResult(settings(options), [])
    status = _measure(options, result)
    if result.rows:
        _write(result, options.chart, args.json)
    return status or (_FAILED if result.has_failed else 0)


def _options(args: argparse.Namespace) -> CompareOptions:
    from ..compare.contender import parse_contender, parse_contenders

    return CompareOptions(
        contenders=parse_contenders(args.models),
        source=parse_contender(args.source) if args.source else None,
        repeat=args.repeat,
        prompt_tokens=args.prompt_tokens,
        new_tokens=args.tokens,
        has_kld=not args.no_kld,
        kld_tokens=args.kld_tokens,
        max_kld=args.max_kld,
        threads=args.threads,
        context=args.context,
        chart=args.chart,
        timeout_s=args.timeout_s,
    )


def _check_output(options: CompareOptions, json_file: str | None) -> None:
    if json_file not in (None, "-") and not Path(json_file).absolute().parent.is_dir():
        raise ConfigError(f"--json {json_file}: there is no folder {Path(json_file).absolute().parent}")
    if options.chart:
        from ..compare.chart import require_chart

        require_chart()


def _measure(options: CompareOptions, result: "CompareResult") -> int:
    """The exit status. Servers and other children are gone when it returns."""
    import asyncio

    from ..compare.compare import compare

    try:
        with asyncio.Runner() as runner:
            runner.run(_until_sigterm(compare(options, result, _say)))
    except KeyboardInterrupt:
        result.ended = "interrupted"
        return _INTERRUPTED
    except asyncio.CancelledError:
        result.ended = "terminated"
        return _TERMINATED
    finally:
        _clear()
    return 0


async def _until_sigterm(work: "Coroutine[Any, Any, None]") -> None:
    """Ctrl-C cancels by itself; so that the children end too, SIGTERM and a closed terminal do the same."""
    import asyncio

    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await work


def _say(text: str) -> None:
    """What is going on: on a terminal one line that the next replaces, else a line each."""
    sys.stderr.write(f"\r\x1b[2K{text}" if sys.stderr.isatty() else f"{text}\n")
    sys.stderr.flush()


def _clear() -> None:
    if sys.stderr.isatty():
        _say("")


def _write(result: "CompareResult", chart: Path | None, json_file: str | None) -> None:
    from rich.console import Console

    from ..compare.chart import draw_chart
    from ..compare.table import print_comparison, to_json

    console = Console(stderr=json_file == "-", highlight=False)
    if not console.is_terminal:
        console = Console(stderr=json_file == "-", highlight=False, width=_PLAIN_WIDTH)
    print_comparison(result, console)
    if json_file == "-":
        sys.stdout.write(to_json(result) + "\n")
    elif json_file is not None:
        Path(json_file).write_text(to_json(result) + "\n", encoding="utf-8")
    if chart and draw_chart(result, chart):
        console.print(f"{chart}", soft_wrap=True, markup=False)
