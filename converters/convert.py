"""From a source to artifacts with their proofs: what ``tapster convert`` does."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..runtime.profile import load_profile
from .artifact import Artifact
from .checkpoint.checkpoint import Checkpoint
from .folder_formats import require_installed
from .folders import make_folders
from .huggingface.convert import to_huggingface
from .ladder import make_ggufs, require_all_passed
from .material import plan_checkpoint
from .options import ConvertOptions
from .outputs import plan_outputs, refuse_existing_files, refuse_own_source, sidecar_paths
from .progress import Progress, Silent
from .publish.entries import recommended
from .publish.publish import entry_of, publish, require_publishable
from .publish.sidecars import sidecars, write_sidecars
from .source import GGUFSource, open_source
from .targets import FOLDER_FORMATS


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was made so far: ``artifacts``, and ``files`` that lie beside them."""

    artifacts: list[Artifact] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "artifacts": [artifact.to_json() for artifact in self.artifacts],
            "files": [str(path) for path in self.files],
        }


def convert(
    spec: str,
    options: ConvertOptions,
    made: Conversion | None = None,
    *,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _note: None,
) -> Conversion:
    """Convert the checkpoint or GGUF file that ``spec`` names. ``made`` grows with every artifact that has reached its
    place, and is returned; ``tell`` gets what a user should know of the result.

    ConversionError, ModelError and ConfigError for what cannot be done; ProofError, after everything else has been
    made, when an artifact is not what its source was.
    """
    progress, made = progress or Silent(), made or Conversion()
    if options.publish:
        require_publishable()
    folder_targets = [target for target in options.targets if target.format in FOLDER_FORMATS]
    require_installed(folder_targets, verify=options.verify)
    source, folder = open_source(spec, options)
    outputs = plan_outputs(source.name, folder, options)
    refuse_own_source(source.path, outputs)
    refuse_existing_files(sidecar_paths(outputs, options), options)
    if isinstance(source, Checkpoint) and any(target.format == "gguf" for target in options.targets) and folder_targets:
        plan_checkpoint(source)  # not after the folders have been made
    for output in outputs:
        if output.target.format == "hf":
            assert isinstance(source, GGUFSource)  # open_source sees to it
            made.artifacts.append(to_huggingface(source.path, output, options, progress))
    folders = [output for output in outputs if output.target.format in FOLDER_FORMATS]
    if folders:
        made.artifacts.extend(make_folders(source, folders, options, progress, tell))
    ggufs = [output for output in outputs if output.target.format == "gguf"]
    if ggufs:
        made.artifacts.extend(make_ggufs(source, ggufs, options, progress, tell))
        made.files.extend(_accompany(source, made.artifacts, options, progress))
    require_all_passed(made.artifacts)
    return made


def _accompany(
    source: Checkpoint | GGUFSource, artifacts: list[Artifact], options: ConvertOptions, progress: Progress
) -> list[Path]:
    """What lies beside the artifacts, for other programs and for readers."""
    good = [artifact for artifact in artifacts if artifact.target.format == "gguf" and not artifact.failures]
    if not good:
        return []
    if options.publish:
        return publish(source, good, options, progress)
    if not options.sidecars:
        return []
    path = good[0].path if len(good) == 1 else recommended([entry_of(one) for one in good]).path
    named = {f"{path.stem}.{name}": text for name, text in sidecars(load_profile(path)).items()}
    return write_sidecars(path.parent, named)
