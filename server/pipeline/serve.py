"""The last step: a server for what was made."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from ...runtime.errors import ConfigError
from .proofs import Proved
from .step import Job, Verdict

if TYPE_CHECKING:
    from ...converters.targets import Target


@dataclass(frozen=True)
class Serving:
    """What is to be served, and how: ``target`` is None for the one that is worth most, ``arguments`` are further ones
    of ``tapster serve``. Not at all where ``is_wanted`` is false."""

    is_wanted: bool = True
    target: "Target | None" = None
    arguments: tuple[str, ...] = ()

    def verdict(self, job: Job) -> Verdict:
        """What the plan says of it."""
        if not self.is_wanted:
            return Verdict("not needed", ["--no-serve"])
        return Verdict("will run", [], str(self.target) if self.target else _likely(job))

    def command(self, model: Path) -> list[str]:
        """What a user would type."""
        return ["tapster", "serve", str(model), *self.arguments]

    def start(self, model: Path) -> None:
        """Become the server: this process, with all that training has loaded, is replaced and does not come back."""
        sys.stdout.flush()
        sys.stderr.flush()
        command = [sys.executable, "-m", "tapster.server.cli", *self.command(model)[1:]]
        os.execv(sys.executable, command)


def _likely(job: Job) -> str:
    """What ``to_serve`` will choose, as far as it is known before."""
    if any(target.format == "gguf" for target in job.targets):
        return "the smallest GGUF file that lost little"
    return str(job.targets[0] if job.targets else job.model)


def chosen_target(text: str | None, targets: "Sequence[Target]") -> "Target | None":
    """The one that a user named. ConfigError for one that is not made."""
    if text is None:
        return None
    names = {str(target).lower(): target for target in targets}
    if text.lower() in names:
        return names[text.lower()]
    near = get_close_matches(text.lower(), names, n=1)
    made = ", ".join(str(target) for target in targets) or "nothing"
    hint = f"did you mean {names[near[0]]}?" if near else f"the pipeline makes {made}"
    raise ConfigError(f"--serve {text}: no such artifact is made; {hint}")


def to_serve(made: "Sequence[tuple[Target, Proved]]", wanted: "Target | None", model: Path) -> Path:
    """The file or folder: the one that was named; else the smallest GGUF file that lost little, as ``tapster convert
    --publish`` recommends it; else what there is."""
    if wanted is not None:
        return next(one.path for target, one in made if target == wanted)
    ggufs = [one for target, one in made if target.format == "gguf"]
    if not ggufs:
        return made[0][1].path if made else model
    from ...converters.publish.entries import Entry, recommended

    return recommended([Entry.from_record(one.path, one.record) for one in ggufs]).path
