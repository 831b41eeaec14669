"""Turn a folder of artifacts into what can be uploaded: speeds, chart, model card and sidecars."""

from collections.abc import Sequence
from pathlib import Path

from ...runtime.profile import load_profile
from ..artifact import Artifact
from ..checkpoint.checkpoint import Checkpoint
from ..options import ConvertOptions
from ..progress import Progress
from ..source import GGUFSource
from .card import CardFacts, model_card
from .chart import draw_chart
from .entries import Entry, recommended
from .sidecars import sidecars, write_sidecars
from .speed import Speed, measure_speed, this_machine


def publish(
    source: Checkpoint | GGUFSource, artifacts: Sequence[Artifact], options: ConvertOptions, progress: Progress
) -> list[Path]:
    """Write everything beside the artifacts. Returns the paths. ConversionError, ConfigError without matplotlib."""
    folder = artifacts[0].path.parent
    entries = [
        _entry(artifact, speed)
        for artifact, speed in zip(artifacts, _speeds(artifacts, options, progress), strict=True)
    ]
    entries.sort(key=lambda entry: entry.file_bytes)
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
            imatrix=_imatrix(options, folder, source.name),
            chart=next((path for path in chart if path.suffix == ".png"), None),
            versions=artifacts[0].proof.record["versions"] if artifacts[0].proof else {},
        )
        publisher = (options.repo or "publisher").partition("/")[0]
        texts = {"README.md": model_card(facts), **sidecars(profile, publisher=publisher)}
        return [*chart, *write_sidecars(folder, texts)]


def require_publishable() -> None:
    """ConfigError at once, and not after hours of work, when matplotlib is missing."""
    from .chart import _figure

    _figure()


def _speeds(artifacts: Sequence[Artifact], options: ConvertOptions, progress: Progress) -> list[Speed]:
    with progress.stage("Measuring speeds", len(artifacts), "files") as advance:
        speeds: list[Speed] = []
        for artifact in artifacts:
            speeds.append(measure_speed(artifact.path, threads=options.threads))
            advance(1)
    return speeds


def _entry(artifact: Artifact, speed: Speed) -> Entry:
    assert artifact.proof is not None
    record = artifact.proof.record["artifact"]
    return Entry(
        path=artifact.path,
        type=artifact.target.type,
        file_bytes=record["bytes"],
        bits_per_weight=record["bits_per_weight"],
        divergence=artifact.divergence,
        speed=speed,
    )


def _hub_name(source: Checkpoint | GGUFSource) -> str | None:
    """``org/name`` of a checkpoint in the Hub's cache."""
    path = source.path.resolve()
    folder = path.parent.parent.name
    if path.parent.name != "snapshots" or not folder.startswith("models--"):
        return None
    return folder.removeprefix("models--").replace("--", "/", 1)


def _imatrix(options: ConvertOptions, folder: Path, name: str) -> str | None:
    """What the importance matrix was made from, for the card; None when there is none."""
    if (folder / f"{name}-imatrix.gguf").is_file():
        text = options.calibration.name if options.calibration else "tapster's own calibration text"
        return f"{text} (`{name}-imatrix.gguf`)"
    chosen = options.imatrix
    return f"`{Path(chosen).name}`" if chosen not in (None, "auto", "none") else None
