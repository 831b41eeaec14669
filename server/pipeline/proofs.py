"""What the proofs beside artifacts say, and whether they are of these artifacts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...converters.proof.proof import proof_path
from ...runtime.errors import ConversionError, ModelError, ProofError
from ...runtime.json_file import read_json
from .contents import MARK, file_digest


@dataclass(frozen=True)
class Proved:
    """An artifact that is what its proof describes. ``mean_kld`` in nats and ``top1`` are None where nothing was
    measured: an exact copy, or a model that llama.cpp cannot compare with."""

    path: Path
    type: str
    num_bytes: int
    mean_kld: float | None
    top1: float | None
    record: dict[str, Any]


def fault(artifact: Path) -> str | None:
    """Why the artifact does not count as proved."""
    path = proof_path(artifact)
    if not path.is_file():
        return f"{path} is not there"
    try:
        record = read_json(path, ConversionError)
        digests = record["artifact"]["sha256"]
        passed = record["verified"] and record["passed"]
    except (ConversionError, KeyError, TypeError):
        return f"{path} is damaged"
    if not passed:
        return f"{path} says that it failed"
    files = {artifact: digests} if isinstance(digests, str) else {artifact / name: one for name, one in digests.items()}
    if any(not file.is_file() or file_digest(file) != MARK + one for file, one in files.items()):
        return f"{artifact} is not the one that its proof describes"
    return None


def proved(artifact: Path) -> Proved:
    """ProofError where it is not."""
    if wrong := fault(artifact):
        raise ProofError(f"{wrong}: the same command makes it again")
    record = read_json(proof_path(artifact), ModelError)
    facts, found = record["artifact"], record["checks"]["divergence"]
    overall = found["overall"] if found["measured"] else {"mean": None, "top1": None}
    return Proved(artifact, facts["type"], _num_bytes(artifact), overall["mean"], overall["top1"], record)


def _num_bytes(artifact: Path) -> int:
    files = [file for file in artifact.rglob("*") if file.is_file()] if artifact.is_dir() else [artifact]
    return sum(file.stat().st_size for file in files)
