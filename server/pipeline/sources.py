"""The training data of a stage, as inputs of a step."""

from pathlib import Path

from ...runtime.errors import ConfigError
from ...training.data.sources import open_source
from ...training.recipe.schema import Stage
from .contents import MARK
from .inputs import Inputs


def source_digests(stage: Stage) -> Inputs:
    """Of the files of each source. What is on the Hub counts by its name; what is missing is said when it is read."""
    found: Inputs = {}
    for source in (*stage.data.train, *stage.data.eval):
        if source != "teacher" and not source.startswith("hub:"):
            found |= _digests(source)
    return found


def _digests(source: str) -> Inputs:
    try:
        files = open_source(source).fingerprint["files"]
    except ConfigError:
        return {}
    is_one = len(files) == 1
    return {source if is_one else str(Path(source, name)): MARK + digest for name, digest in files.items()}
