"""Command-line options that several commands share; their defaults are the settings' own."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..runtime.engines.llamacpp.config import LlamaCppConfig

MODEL_HELP = "a .gguf file, a folder with one, a Hugging Face id (org/name or org/name:Q4_K_M), or demo"


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The model and how it is loaded."""
    from ..runtime.engines.llamacpp.config import LlamaCppConfig

    parser.add_argument("model", nargs="?", default="demo", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument(
        "--chat-template", metavar="NAME|FILE", help="use a built-in chat template or a .jinja file, not the model's"
    )
    engine = parser.add_argument_group("engine")
    engine.add_argument(
        "--context", type=int, metavar="N", help="tokens a conversation may have (default: the model's, at most 8192)"
    )
    engine.add_argument(
        "--cells",
        type=int,
        metavar="N",
        help="tokens the cache holds for everyone (default: one context, at least 8192)",
    )
    engine.add_argument(
        "--kept",
        type=int,
        metavar="N",
        help="tokens of earlier prompts kept in memory besides (default: a quarter of cells)",
    )
    engine.add_argument(
        "--threads", type=int, metavar="N", help="fix the number of threads (default: adapt to what is free)"
    )
    engine.add_argument(
        "--max-parallel", type=int, default=LlamaCppConfig.max_parallel, metavar="N", help="sequences that run at once"
    )
    engine.add_argument(
        "--max-waiting",
        type=int,
        default=LlamaCppConfig.max_waiting,
        metavar="N",
        help="requests that may wait; more get a 429",
    )
    engine.add_argument(
        "--batch-tokens", type=int, default=LlamaCppConfig.batch_tokens, metavar="N", help="tokens a step holds at most"
    )
    engine.add_argument(
        "--gpu-layers",
        type=int,
        metavar="N",
        help="layers to put on a GPU, where llama.cpp was built with one (default: all)",
    )


def engine_config(args: argparse.Namespace) -> "LlamaCppConfig":
    """The engine's settings from parsed arguments. Raises ConfigError."""
    from ..runtime.engines.llamacpp.config import LlamaCppConfig

    return LlamaCppConfig(
        context=args.context,
        cells=args.cells,
        kept=args.kept,
        threads=args.threads,
        max_parallel=args.max_parallel,
        max_waiting=args.max_waiting,
        batch_tokens=args.batch_tokens,
        gpu_layers=args.gpu_layers,
    )
