"""The engines against the programs they should equal: artifacts are made for the run, measured and thrown away."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from ...runtime.engines.local.threads import default_threads
from ...runtime.errors import ConversionError, TapsterError
from ...runtime.models import find_model
from .contest import NEW_TOKENS, Contest, hold
from .contest_vllm import measure_vllm
from .conversion import Row, tapster_command
from .engine_options import EngineBenchOptions

CONVERSION_S, CONVERSION_MB = 10.0, 1000.0
MLX_NEW_TOKENS = 16
"""mlx_lm on a CPU, for which MLX is not made, takes seconds for a token of the demo model in bfloat16."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EngineReport:
    """``rows`` grow as a run goes; ``notes`` say what could not be measured, and why."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class EngineBench:
    """One run."""

    def __init__(self, options: EngineBenchOptions, place: Path, report: EngineReport, say: Say) -> None:
        self.rows, self.notes = report.rows, report.notes
        self._options = options
        self._place = place
        self._say = say
        self._made: dict[str, Path] = {}

    async def run(self) -> None:
        """Everything that was asked for. What fails is a note, and the rest goes on."""
        benches: dict[str, Callable[[], Awaitable[list[Row]]]] = {
            "onnx": lambda: self._contest("onnx", "onnxruntime-genai", "onnx:int4", (1,)),
            "mlx": lambda: self._contest("mlx", "mlx_lm", "mlx:4bit", (1, 4), MLX_NEW_TOKENS),
            "transformers": lambda: self._contest("transformers", "model.generate", "hf", (1,)),
            "vllm": self._vllm,
            "onnx-conversion": self._conversion,
        }
        for name in self._options.names:
            if name == "vllm" and not self._options.has_vllm:
                self.notes.append("vllm: not measured: set TAPSTER_VLLM_PYTHON or give --vllm-url")
                continue
            try:
                self.rows += await benches[name]()
            except TapsterError as error:
                self.notes.append(f"{name}: not measured: {error}")

    async def _contest(
        self, engine: str, opponent: str, kind: str, streams: tuple[int, ...], new_tokens: int = NEW_TOKENS
    ) -> list[Row]:
        options = self._options
        return await hold(
            Contest(engine, opponent, await self._artifact(kind), streams, new_tokens),
            repeat=options.repeat,
            threads=options.threads or default_threads(),
            timeout_s=options.timeout_s,
            seed=options.seed,
            say=self._say,
        )

    async def _vllm(self) -> list[Row]:
        return await measure_vllm(await self._artifact("hf"), self._options, self._say)

    async def _conversion(self) -> list[Row]:
        """Whole commands, imports inside."""
        checkpoint = await self._artifact("hf")
        size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors")) / 1e6
        rows: list[Row] = []
        for label, options, has_bar in (("without its proof", ["--no-verify"], True), ("with its proof", [], False)):
            self._say(f"{size:.0f} MB to onnx:int4 {label}")
            runs = [
                await asyncio.to_thread(_timed_conversion, checkpoint, *options) for _ in range(self._options.repeat)
            ]
            what = f"{size:.0f} MB checkpoint to onnx:int4, whole command, {label}"
            seconds, peak_mb = median(run[0] for run in runs), max(run[1] for run in runs) / 1e6
            rows.append(Row(what, seconds, "s", CONVERSION_S if has_bar else None))
            rows.append(Row("its peak memory", peak_mb, "MB", CONVERSION_MB if has_bar else None))
        return rows

    async def _artifact(self, kind: str) -> Path:
        """The folder of that format, made when it is first wanted."""
        if kind not in self._made:
            self._made[kind] = await (self._checkpoint() if kind == "hf" else self._converted(kind))
        return self._made[kind]

    async def _checkpoint(self) -> Path:
        profile = await asyncio.to_thread(find_model, self._options.what)
        if profile.format == "hf":
            return profile.path
        if profile.format != "gguf":
            raise ConversionError(f"{self._options.what} is neither a checkpoint nor a GGUF file to make one from")
        return await self._convert(profile.path, "hf")

    async def _converted(self, kind: str) -> Path:
        return await self._convert(await self._artifact("hf"), kind)

    async def _convert(self, source: Path, kind: str) -> Path:
        self._say(f"making {kind}")
        folder = self._place / kind.replace(":", "-")
        words = ["convert", str(source), "--to", kind, "--out", str(folder), "--no-verify"]
        await asyncio.to_thread(tapster_command, self._place, *words)
        return folder if (folder / "config.json").is_file() else next(folder.glob("*/config.json")).parent


def _timed_conversion(checkpoint: Path, *options: str) -> tuple[float, int]:
    """Seconds and peak bytes of one command."""
    with tempfile.TemporaryDirectory(prefix="tapster-bench-") as folder:
        out = Path(folder) / "made"
        return tapster_command(
            Path(folder), "convert", str(checkpoint), "--to", "onnx:int4", "--out", str(out), *options
        )


async def measure_engines(options: EngineBenchOptions, report: EngineReport, say: Say) -> None:
    """Fill the report, as far as it comes: what was measured before an early end is there."""
    with tempfile.TemporaryDirectory(prefix="tapster-bench-") as folder:
        await EngineBench(options, Path(folder), report, say).run()
