"""The command ``tapster``. Heavy imports wait for the command that needs them."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from ..runtime.errors import EngineError, ProofError, TapsterError, TrainingError

COMMANDS = {
    "serve": "answer on an OpenAI-compatible endpoint and a chat page",
    "chat": "talk to a model in the terminal",
    "inspect": "show what a model is, how it stops, and what is wrong with it",
    "convert": "turn a checkpoint into GGUF files that are proved, or a GGUF file into a checkpoint",
    "imatrix": "collect an importance matrix, which makes small types lose less",
    "train": "make a checkpoint from a recipe: distil, pre-train, fine-tune, replace attention",
    "pipeline": "from a recipe to a served model: ask the teacher, train, convert, prove, serve",
    "compare": "measure artifacts and engines side by side: which to run on this machine",
    "bench": "measure a server or a model under load",
}
_RUNNERS = ("serve", "chat")
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        says_nothing = action.default in (None, False, []) or "default" in (action.help or "")
        return action.help if says_nothing else super()._get_help_string(action)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit status: 0, 1 for a failure while running, 2 for bad input, 130 for Ctrl-C."""
    arguments, engine_arguments = _split(list(sys.argv[1:] if argv is None else argv))
    parser = _parser(arguments)
    args = parser.parse_args(arguments)
    args.engine_arguments = engine_arguments
    if engine_arguments and args.command not in _RUNNERS:
        parser.error(f"{args.command} takes nothing after --; {' and '.join(_RUNNERS)} do, for an engine they start")
    try:
        return _module(args.command).run(args)
    except (EngineError, ProofError, TrainingError) as error:
        sys.stderr.write(f"tapster: {error}\n")
        return EXIT_FAILED
    except TapsterError as error:
        sys.stderr.write(f"tapster: {error}\n")
        return EXIT_USAGE
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _split(arguments: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """What is ours, and what follows ``--``: arguments of a program that the engine starts."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], tuple(arguments[at + 1 :])


def _parser(arguments: list[str]) -> argparse.ArgumentParser:
    """The parser of all commands; options only of the one that is called, so that the others are not imported."""
    parser = argparse.ArgumentParser(
        prog="tapster", description="A small language model, from teacher to served.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=_version() if "--version" in arguments else "")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    called = next((word for word in arguments if word in COMMANDS), None)
    for name, description in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=description,
            description=description[0].upper() + description[1:] + ".",
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )
        if name == called:
            _module(name).add_arguments(command)
    return parser


def _version() -> str:
    from importlib.metadata import version

    return f"tapster {version('tapster')}"


def _module(command: str) -> Any:
    return importlib.import_module(f".commands.{command}", __package__)


if __name__ == "__main__":
    sys.exit(main())
