"""Turn a folder of artifacts into what can be uploaded: speeds, chart, model card and sidecars."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...runtime.profile import load_profile
from ..artifact import Artifact
from ..checkpoint.checkpoint import Checkpoint
from ..options import ConvertOptions
from ..outputs import base_name
from ..progress import Progress
from ..proof.proof import VERSION
from ..source import GGUFSource
from .card import CardFacts, model_card
from .chart import draw_chart
from .entries import Entry, recommended
from .sidecars import go_template, sidecars, write_sidecars
from .speed import measure_speed, this_machine


def publish(
    source: Checkpoint | GGUFSource, artifacts: Sequence[Artifact], options: ConvertOptions, progress: Progress
) -> list[Path]:
    """Write everything beside the artifacts. What was proved into the folder before is on the card too. Returns the
    paths. ConversionError, ConfigError without matplotlib."""
    folder = artifacts[0].path.parent
    entries = [entry_of(artifact) for artifact in artifacts]
    entries += earlier_entries(folder, source.name, [artifact.path for artifact in artifacts])
    entries = _with_speeds(sorted(entries, key=lambda entry: entry.file_bytes), options, progress)
    profile = load_profile(recommended(entries).path)
    with progress.stage("Writing the model card and the chart"):
        chart = draw_chart(entries, f"{source.name}: what each file lost", folder)
        facts = CardFacts(
            name=source.name,
            profile=profile,
            entries=entries,
            base_model=_hub_name(source),
            front=source.card if isinstance(source, Checkpoint) else {},
            repo=options.repo or "USER/REPO",
            machine=this_machine(),
            chart=next((path for path in chart if path.suffix == ".png"), None),
            versions=artifacts[0].proof.record["versions"] if artifacts[0].proof else {},
        )
        texts = {"README.md": model_card(facts), **sidecars(profile, repo=options.repo)}
        if (go := go_template(profile)) is not None:
            texts["template"] = go
        return [*chart, *write_sidecars(folder, texts)]


def require_publishable() -> None:
    """ConfigError at once, and not after hours of work, when matplotlib is missing."""
    from .chart import _figure

    _figure()


def earlier_entries(folder: Path, name: str, artifacts: Sequence[Path]) -> list[Entry]:
    """Files of the model ``name`` that lie in ``folder`` with a proof that they passed, other than ``artifacts``. One
    whose size is not what its proof says is left out, and so is a proof that nobody can read."""
    found: list[Entry] = []
    for path in sorted(folder.glob("*.proof.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            entry = Entry.from_record(folder / Path(record["artifact"]["name"]).name, record)
            is_wanted = (
                record["verified"]
                and record["passed"]
                and record["proof_version"] == VERSION
                and _model(record) == base_name(name)
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        is_there = entry.path.is_file() and entry.path.stat().st_size == entry.file_bytes
        if is_wanted and is_there and entry.path not in artifacts:
            found.append(entry)
    return found


def _model(record: Mapping[str, Any]) -> str:
    """What the artifact was made from, without the type of its weights."""
    return base_name(record["source"]["name"].removesuffix(".gguf"))


def _with_speeds(entries: Sequence[Entry], options: ConvertOptions, progress: Progress) -> list[Entry]:
    """Measured here and now for all, so that they can be compared."""
    with progress.stage("Measuring speeds", len(entries), "files") as advance:
        measured: list[Entry] = []
        for entry in entries:
            measured.append(replace(entry, speed=measure_speed(entry.path, threads=options.threads)))
            advance(1)
    return measured


def entry_of(artifact: Artifact) -> Entry:
    """What its proof, which may be an unverified one, says of an artifact just made."""
    assert artifact.proof is not None
    return replace(Entry.from_record(artifact.path, artifact.proof.record), type=artifact.target.type)


def _hub_name(source: Checkpoint | GGUFSource) -> str | None:
    """``org/name`` of a checkpoint in the Hub's cache."""
    path = source.path.resolve()
    folder = path.parent.parent.name
    if path.parent.name != "snapshots" or not folder.startswith("models--"):
        return None
    return folder.removeprefix("models--").replace("--", "/", 1)
