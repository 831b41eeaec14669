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
    from ..runtime.engines.registry import ENGINES

    engine = parser.add_argument_group("engine")
    engine.add_argument(
        "--engine", metavar="NAME", help=f"{', '.join(ENGINES)} (default: the one for the model's format)"
    )
    engine.add_argument(
        "--tokenizer", metavar="FOLDER|org/name", help="where the tokenizer of a model behind vllm:// is found"
    )
    for name, (kind, metavar, help_text) in SETTINGS.items():
        engine.add_argument(_flag(name), type=kind, metavar=metavar, help=help_text)
    engine.add_argument(
        "--trust-remote-code",
        action="store_true",
        default=None,
        help="mlx: let a folder bring its model as a Python file, which is run",
    )


SETTINGS: dict[str, tuple[type, str, str]] = {
    "context": (int, "N", "tokens a conversation may have (default: the model's, at most 8192)"),
    "threads": (int, "N", "fix the number of threads (default: adapt to what is free)"),
    "max_parallel": (int, "N", "sequences that run at once (default: 16, vllm: 64)"),
    "max_waiting": (int, "N", "requests that may wait; more get a 429 (default: 256)"),
    "batch_tokens": (int, "N", "tokens a step holds at most (default: 512)"),
    "cells": (int, "N", "llama.cpp: tokens the cache holds for everyone (default: one context, at least 8192)"),
    "kept": (int, "N", "llama.cpp: tokens of earlier prompts kept in memory besides (default: a quarter of cells)"),
    "gpu_layers": (int, "N", "llama.cpp: layers to put on a GPU, where it was built with one (default: all)"),
    "device": (str, "NAME", "transformers: cpu, cuda, cuda:1, mps (default: CUDA when there is one)"),
    "dtype": (str, "NAME", "transformers: what is computed in (default: the checkpoint's own on a GPU, else float32)"),
    "vllm_python": (str, "PATH", "vllm: the interpreter that has it (default: this one, else vllm on the PATH)"),
    "vllm_connect_timeout_s": (float, "S", "vllm: how long a connection may take (default: 5)"),
    "vllm_read_timeout_s": (float, "S", "vllm: how long a server may be silent in mid-answer (default: 60)"),
    "vllm_retries": (int, "N", "vllm: how often a request without a token yet is tried again (default: 2)"),
    "vllm_start_timeout_s": (float, "S", "vllm: how long one that is started here may take (default: 3600)"),
}
"""What engines can be told, by the names of their settings: type, placeholder, help."""


def engine_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the user set, by the names of the engines' settings."""
    names = [*SETTINGS, "trust_remote_code"]
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    return {**given, **({"arguments": args.engine_arguments} if args.engine_arguments else {})}


def find_profile(args: argparse.Namespace) -> "ModelProfile":
    """The profile of the model that the arguments name. Raises ModelError and ConfigError."""
    from ..runtime.models import find_model

    return find_model(args.model, engine=args.engine, chat_template=args.chat_template, tokenizer=args.tokenizer)


def engine_config(args: argparse.Namespace, profile: "ModelProfile") -> "EngineConfig":
    """The settings of the engine that is to run the model, from parsed arguments. Raises ConfigError."""
    from ..runtime.engines.registry import choose_engine

    return choose_engine(profile.format, args.engine).make_config(engine_settings(args))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
