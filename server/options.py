"""Command-line options that several commands share; their defaults are the settings' own."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..runtime.engines.config import EngineConfig
    from ..runtime.profile import ModelProfile

MODEL_HELP = (
    "a .gguf file, a folder (GGUF, Hugging Face, MLX or ONNX), a Hugging Face id (org/name or org/name:Q4_K_M), "
    "vllm://host:port, or demo"
)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The model and how it is loaded."""
    parser.add_argument("model", nargs="?", default="demo", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument(
        "--chat-template", metavar="NAME|FILE", help="use a built-in chat template or a .jinja file, not the model's"
    )
    add_engine_arguments(parser)


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """The engine and its settings. What is not given is the engine's own default."""
    from ..runtime.engines.config import EngineConfig
    from ..runtime.engines.registry import ENGINES

    engine = parser.add_argument_group("engine")
    engine.add_argument(
        "--engine", metavar="NAME", help=f"{', '.join(ENGINES)} (default: the one for the model's format)"
    )
    for name, kind, help_text in (
        ("context", int, "tokens a conversation may have (default: the model's, at most 8192)"),
        ("threads", int, "fix the number of threads (default: adapt to what is free)"),
        ("max_parallel", int, f"sequences that run at once (default: {EngineConfig.max_parallel})"),
        ("max_waiting", int, f"requests that may wait; more get a 429 (default: {EngineConfig.max_waiting})"),
        ("batch_tokens", int, f"tokens a step holds at most (default: {EngineConfig.batch_tokens})"),
        ("cells", int, "llama.cpp: tokens the cache holds for everyone (default: one context, at least 8192)"),
        ("kept", int, "llama.cpp: tokens of earlier prompts kept in memory besides (default: a quarter of cells)"),
        ("gpu_layers", int, "llama.cpp: layers to put on a GPU, where it was built with one (default: all)"),
    ):
        engine.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=help_text)


_SETTINGS = ("context", "threads", "max_parallel", "max_waiting", "batch_tokens", "cells", "kept", "gpu_layers")


def engine_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the user set, by the names of the engines' settings."""
    return {name: value for name in _SETTINGS if (value := getattr(args, name)) is not None}


def engine_config(args: argparse.Namespace, profile: "ModelProfile") -> "EngineConfig":
    """The settings of the engine that is to run the model, from parsed arguments. Raises ConfigError."""
    from ..runtime.engines.registry import choose_engine

    return choose_engine(profile.format, args.engine).make_config(engine_settings(args))
