"""``tapster`` as a user runs it, and what a run has logged."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROOF_TOKENS = 512
"""Enough to see that an artifact is sound; more only narrow the interval."""


def tapster(*arguments: object) -> str:
    """Standard output of a command, which has to end well."""
    command = [sys.executable, "-m", "tapster.server.cli", *map(str, arguments)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False, env=offline)
    assert done.returncode == 0, f"tapster {arguments[0]} ended with {done.returncode}:\n{done.stderr[-3000:]}"
    return done.stdout


def train_small(recipe: str, out: Path, *options: object) -> Path:
    """The run's folder."""
    tapster("train", recipe, "--small", "--out", out, "--quiet", *options)
    return out


def convert_all(folder: Path, out: Path, *targets: str) -> dict[str, dict[str, Any]]:
    """What ``tapster convert --json`` says of each target, all proved."""
    wanted = [part for target in targets for part in ("--to", target)]
    said = tapster("convert", folder, *wanted, "--out", out, "--proof-tokens", PROOF_TOKENS, "--json", "--quiet")
    artifacts = json.loads(said)["artifacts"]
    assert all(artifact["proof"]["passed"] for artifact in artifacts)
    return {f"{artifact['format']}:{artifact['type']}": artifact for artifact in artifacts}


def records(run: Path, stage: str, kind: str) -> list[dict[str, Any]]:
    """What a run has logged of a stage, in order: ``train`` or ``eval``."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [line for line in lines if line["stage"] == stage and line["kind"] == kind]
