"""From a source to artifacts with their proofs: what ``tapster convert`` does."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..runtime.errors import ConversionError
from ..runtime.profile import load_profile
from .artifact import Artifact
from .checkpoint.checkpoint import Checkpoint
from .huggingface.convert import to_huggingface
from .ladder import make_ggufs, require_all_passed
from .options import ConvertOptions
from .outputs import Output, plan_outputs, sidecar_name
from .progress import Progress, Silent
from .publish.publish import publish, require_publishable
from .publish.sidecars import sidecars, write_sidecars
from .source import GGUFSource, open_source


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
    source, folder = open_source(spec, options)
    outputs = plan_outputs(source.name, folder, options)
    for output in outputs:
        if output.target.format == "hf":
            made.artifacts.append(_checkpoint_of(source, output, options, progress))
    ggufs = [output for output in outputs if output.target.format == "gguf"]
    if ggufs:
        made.artifacts.extend(make_ggufs(source, ggufs, options, progress, tell))
        made.files.extend(_accompany(source, made.artifacts, options, progress))
    require_all_passed(made.artifacts)
    return made


def _checkpoint_of(
    source: Checkpoint | GGUFSource, output: Output, options: ConvertOptions, progress: Progress
) -> Artifact:
    if isinstance(source, Checkpoint):
        raise ConversionError(f"{source.path} is a Hugging Face folder already: --to hf is for a GGUF file")
    return to_huggingface(source.path, output, options, progress)


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
    texts = sidecars(load_profile(good[0].path))
    paths = [artifact.path for artifact in good]
    named = {sidecar_name(paths, name, is_published=False): text for name, text in texts.items()}
    return write_sidecars(good[0].path.parent, named)
