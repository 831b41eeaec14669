"""What a step is, and what is known of it before it runs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from .record import Record

if TYPE_CHECKING:
    from ...converters.targets import Target
    from ...training.recipe.schema import Recipe
    from ...training.report.display import Display
    from ...training.teacher.progress import Price

Status = Literal["will run", "up to date", "not needed"]
Name = Literal["teacher", "train", "convert", "prove", "serve"]
NAMES: tuple[Name, ...] = ("teacher", "train", "convert", "prove", "serve")


@dataclass(frozen=True)
class Job:
    """What all steps of one pipeline work on. ``again`` are steps that run whatever was done before."""

    recipe: "Recipe"
    out: Path
    targets: "tuple[Target, ...]"
    resolve_model: Callable[[str], Path]
    display: "Display"
    record: Record
    quiet: bool = False
    price: "Price | None" = None
    again: frozenset[str] = frozenset()

    @property
    def model(self) -> Path:
        """The folder that training leaves."""
        return self.out / "model"


@dataclass(frozen=True)
class Verdict:
    """Whether a step will run, and why or why not. ``about`` says what it makes, or has made; ``holds`` what of that is
    there already and need not be made again."""

    status: Status
    why: list[str] = field(default_factory=list)
    about: str = ""
    holds: str = ""

    @property
    def runs(self) -> bool:
        return self.status == "will run"


class Step(Protocol):
    """A part of the pipeline. ``check`` writes nothing, and looks at what is there when it is called."""

    name: Name

    def check(self) -> Verdict: ...

    def run(self) -> None: ...
