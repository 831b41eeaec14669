"""The benchmark of conversions: that it runs, what its figures mean, and that its random checkpoint is one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tapster.converters.checkpoint.checkpoint import open_checkpoint
from tapster.runtime.profile import load_profile
from tapster.server.bench import conversion
from tapster.server.bench.conversion import Row
from tapster.server.bench.conversion_report import print_rows, rows_to_json


def test_bars_point_either_way() -> None:
    assert Row("slow", 3.0, "s", 2.0).is_met is False
    assert Row("fast", 300.0, "MB/s", 400.0, is_at_least=True).is_met is False
    assert Row("good", 500.0, "MB/s", 400.0, is_at_least=True).is_met is True
    assert Row("no bar", 1.0, "s").is_met is None


def test_report_shows_every_row() -> None:
    rows = [Row("work", 3.0, "s", 2.0), Row("more", 1.0, "s")]
    console = Console(width=100, record=True, quiet=True)
    print_rows(rows, console)
    assert [row["is_met"] for row in json.loads(rows_to_json(rows))["conversion"]] == [False, None]


def test_a_command_is_timed_and_its_own_peak_is_read(demo_model: Path, tmp_path: Path) -> None:
    seconds, peak = conversion.tapster_command(
        tmp_path, "convert", str(demo_model), "--to", "hf", "--out", str(tmp_path / "m")
    )
    assert 0 < seconds < 120
    assert 20e6 < peak < 400e6
    assert open_checkpoint(tmp_path / "m").tensors


def test_random_checkpoint_converts(demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "LARGE_LAYERS", 1)
    monkeypatch.setattr(conversion, "_FEED_FORWARD", 256)
    small, large = tmp_path / "small", tmp_path / "large"
    conversion.tapster_command(tmp_path, "convert", str(demo_model), "--to", "hf", "--out", str(small), "--no-verify")
    conversion._write_large(large, small)
    made = tmp_path / "large-BF16.gguf"
    command = [sys.executable, "-m", "tapster.server.cli", "convert", str(large), "--to", "gguf:BF16", "--no-verify"]
    subprocess.run([*command, "--no-sidecars"], check=True, capture_output=True)
    assert load_profile(made).parameters > 49152 * 1408
