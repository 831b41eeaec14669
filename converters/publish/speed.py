"""How fast an artifact runs here: reading a prompt and writing an answer, with one conversation at a time."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ...runtime.engines.llamacpp.context import Batch, LlamaContext
from ...runtime.engines.llamacpp.library import llama, load_model
from ...runtime.engines.local.threads import default_threads
from ...runtime.errors import ProofError

PROMPT_TOKENS, DECODE_TOKENS = 128, 32
REPEATS, SLOW_REPEATS, SLOW_S = 3, 2, 2.0
"""Runs that are timed; fewer where a run takes longer than SLOW_S."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second, medians of ``runs`` runs after a warm-up, with ``threads`` threads."""

    prefill: float
    decode: float
    threads: int
    runs: int = REPEATS


@dataclass(frozen=True, slots=True)
class Machine:
    """What speeds were measured on."""

    processor: str
    cores: int

    def __str__(self) -> str:
        return f"{self.processor}, {self.cores} core{'' if self.cores == 1 else 's'}"


def this_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """The processor's own name where the system tells it, and the physical cores that this process may use."""
    name = ""
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return Machine(name or platform.processor() or platform.machine() or "unknown processor", default_threads())


def measure_speed(path: Path, *, threads: int | None = None) -> Speed:
    """Load the artifact and time it. ModelError when it cannot be loaded, ProofError when it does not run."""
    threads = threads or default_threads()
    model = load_model(path, None)
    context = None
    try:
        context = LlamaContext(
            model,
            cells=PROMPT_TOKENS + DECODE_TOKENS,
            max_seqs=1,
            batch_tokens=PROMPT_TOKENS,
            num_threads=threads,
        )
        vocabulary = llama().llama_vocab_n_tokens(llama().llama_model_get_vocab(model))
        warm_up_s = sum(_run(context, vocabulary, path))
        num_runs = SLOW_REPEATS if warm_up_s > SLOW_S else REPEATS
        runs = [_run(context, vocabulary, path) for _ in range(num_runs)]
    finally:
        if context:
            context.close()
        llama().llama_model_free(model)
    return Speed(
        prefill=PROMPT_TOKENS / median(prefill_s for prefill_s, _ in runs),
        decode=DECODE_TOKENS / median(decode_s for _, decode_s in runs),
        threads=threads,
        runs=len(runs),
    )


def _run(context: LlamaContext, vocabulary: int, path: Path) -> tuple[float, float]:
    """Seconds for the prompt and for the answer. Which tokens they are makes no difference."""
    prompt = [(7 * position + 3) % vocabulary for position in range(PROMPT_TOKENS)]
    batch = Batch(PROMPT_TOKENS)
    context.free(0)
    batch.add_run(prompt, 0, 0, all_outputs=False, last_output=True)
    prefill_s = _timed(lambda: _decode(context, batch, path))

    def answer() -> None:
        for position in range(PROMPT_TOKENS, PROMPT_TOKENS + DECODE_TOKENS):
            batch.clear()
            batch.add(prompt[position % PROMPT_TOKENS], position, 0)
            _decode(context, batch, path)
            context.logits(1)

    return prefill_s, _timed(answer)


def _decode(context: LlamaContext, batch: Batch, path: Path) -> None:
    if code := context.decode(batch):
        raise ProofError(f"llama.cpp cannot run {path} (code {code})")


def _timed(work: Callable[[], None]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s
