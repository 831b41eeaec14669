"""What a benchmark found, as it is written to JSON. Times are seconds unless the name says ms."""

from dataclasses import dataclass, field

from .figures import EXCLUDES, Spread


@dataclass(frozen=True, slots=True)
class CeilingResult:
    """The raw replay of one scenario. Ratios pair each run with the replay that followed it.

    ``host_ms_per_token`` is what the server took longer than the replay, over the new tokens: scheduling,
    detokenising, stop matching, HTTP and this client, and any decode step that went slower for them.
    """

    wall_s: Spread
    prefill_s: Spread
    wall_ratio: Spread
    host_ms_per_token: Spread


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """One scenario. ``runs`` has the figures of every run; ``figures`` those that every run had."""

    name: str
    about: str
    streams: int
    prompt_tokens: int | None
    new_tokens: int
    runs: list[dict[str, float | None]]
    figures: dict[str, Spread]
    ceiling: CeilingResult | None = None


@dataclass(frozen=True, slots=True)
class StartUp:
    """Seconds from the start of the process to ``/v1/models`` answering, ``/ready``, and a first token."""

    models_s: float
    ready_s: float
    first_token_s: float


@dataclass(frozen=True, slots=True)
class MemoryResult:
    """Resident bytes of the server started here, after its first answer and after all scenarios.

    ``model_bytes`` is the model's file and ``cache_bytes`` the 16-bit KV cache of ``cache_cells`` cells.
    """

    started_bytes: int
    ended_bytes: int
    model_bytes: int
    cache_bytes: int | None
    cache_cells: int


@dataclass(frozen=True, slots=True)
class ContentionResult:
    """Wall seconds of one scenario in one state (``quiet`` or ``busy``) for each thread setting.

    ``ratio`` is the adaptive median over the smallest median of the fixed settings.
    """

    scenario: str
    state: str
    wall_s: dict[str, Spread]
    best_fixed: str
    ratio: float


@dataclass(frozen=True, slots=True)
class BarResult:
    """A figure and the bar it must not exceed. ``figure`` is None when it could not be measured."""

    name: str
    unit: str
    figure: float | None
    bar: float

    @property
    def is_met(self) -> bool | None:
        return None if self.figure is None else self.figure <= self.bar


@dataclass(slots=True)
class BenchResult:
    """Everything; ``settings`` is what the run was asked to do and on what machine."""

    settings: dict[str, object]
    scenarios: list[ScenarioResult] = field(default_factory=list)
    start_up: StartUp | None = None
    memory: MemoryResult | None = None
    contention: list[ContentionResult] = field(default_factory=list)
    bars: list[BarResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    excludes: dict[str, str] = field(default_factory=lambda: dict(EXCLUDES))
