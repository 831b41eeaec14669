"""How far a contender is from the source, measured in a process of its own: two engines in it are more than enough."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...converters.proof.figures import Divergence
from ...runtime.errors import ProofError
from ..bench.json_child import json_child
from .prepare import Prepared


class ReferenceFailed(ProofError):
    """The source itself cannot be run, so nothing can be compared with it."""


@dataclass(frozen=True, slots=True)
class MeasuredAgainst:
    """The source, on how much text, with how many threads."""

    source: Prepared
    num_tokens: int
    threads: int | None


async def measure_kld(against: MeasuredAgainst, candidate: Prepared) -> Divergence:
    """Run both over the held-out text. ReferenceFailed, another TapsterError when the candidate is at fault."""
    assert candidate.path is not None
    task = {
        "reference": [against.source.model, against.source.engine],
        "candidate": [candidate.model, candidate.engine],
        "num_tokens": against.num_tokens,
        "threads": against.threads,
    }
    answer = await _ask(task)
    if "reference_error" in answer:
        raise ReferenceFailed(answer["reference_error"])
    return Divergence.from_json(answer, Path(candidate.path))


async def _ask(task: dict[str, Any]) -> dict[str, Any]:
    """What the process answers. EngineError with its last words when it does not, ModelError when it refuses."""
    async with json_child(
        [sys.executable, "-m", f"{__package__}.divergence_worker"], "measuring the divergence"
    ) as process:
        return await process.ask(task)
