"""How fast checkpoints are converted: whole commands, as a user runs them, beside what llama.cpp needs for its part.

Each command runs in a process of its own, so its imports count. With ``TAPSTER_LLAMA_CPP``, the folder of a llama.cpp
source tree, its ``convert_hf_to_gguf.py`` is timed on the same checkpoints.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from ...runtime.errors import EngineError

LARGE_LAYERS = 20
"""Layers of the random checkpoint of 1.27 GB; its width, heads and vocabulary are those of a 0.6 B model."""
_WIDTH, _FEED_FORWARD, _HEADS, _KV_HEADS = 1408, 5632, 22, 11


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report: a figure with its unit, and what it should be, if there is a bar."""

    work: str
    value: float
    unit: str
    bar: float | None = None
    is_at_least: bool = False

    @property
    def is_met(self) -> bool | None:
        if self.bar is None:
            return None
        return self.value >= self.bar if self.is_at_least else self.value <= self.bar

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self) | {"is_met": self.is_met}


def measure_conversion(model: Path, *, repeat: int, say: Callable[[str], None]) -> list[Row]:
    """Convert ``model``, a GGUF file, to a checkpoint, and that in all ways that have a bar: medians of ``repeat``."""
    with tempfile.TemporaryDirectory(prefix="tapster-bench-") as folder:
        place = Path(folder)
        small = place / "small"
        tapster_command(place, "convert", str(model), "--to", "hf", "--out", str(small))
        rows = list(_measure_small(small, place, repeat, say))
        large = place / "large"
        _write_large(large, small)
        rows += _measure_large(large, place, repeat, say)
    return rows


def _measure_small(checkpoint: Path, place: Path, repeat: int, say: Callable[[str], None]) -> Iterator[Row]:
    size = f"{_bytes(checkpoint) / 1e6:.0f} MB"
    for label, options, bar in (("without its proof", ["--no-verify"], 2.0), ("with its proof", [], None)):
        say(f"{size} to BF16 {label}")
        runs = [_convert(checkpoint, place, "BF16", *options) for _ in range(repeat)]
        yield Row(f"{size} checkpoint to BF16, whole command, {label}", median(run[0] for run in runs), "s", bar)
        if bar:
            yield Row("its peak memory", max(run[1] for run in runs) / 1e6, "MB", 400)
    yield from _measure_upstream(checkpoint, place, size, say)


def _measure_large(checkpoint: Path, place: Path, repeat: int, say: Callable[[str], None]) -> Iterator[Row]:
    size = _bytes(checkpoint)
    say(f"{size / 1e9:.2f} GB to BF16")
    runs = [_convert(checkpoint, place, "BF16", "--no-verify") for _ in range(repeat)]
    rate = median(size / 1e6 / run[0] for run in runs)
    yield Row(f"{size / 1e9:.2f} GB checkpoint to BF16, whole command", rate, "MB/s", 400, is_at_least=True)
    yield Row("its peak memory", max(run[1] for run in runs) / 1e6, "MB", 400)
    yield from _measure_upstream(checkpoint, place, f"{size / 1e9:.2f} GB", say)
    say("quantizing")
    source = place / "large-BF16.gguf"
    _convert(checkpoint, place, "BF16", "--no-verify", out=source)
    _quantize_bare(source, place)  # the first time pays for memory and disk
    pairs = [(_quantize_bare(source, place), _quantize(source, place)) for _ in range(repeat)]
    ratio = median(ours / bare for bare, ours in pairs)
    yield Row("quantizing that to Q4_K_M, against llama_model_quantize alone", ratio, "x", 1.05)
    source.unlink()
    say("six types at once")
    names = ("BF16", "F16", "Q8_0", "Q6_K", "Q4_K_M", "Q4_0")
    seconds, peak = _convert_all(checkpoint, place, names)
    yield Row(f"{size / 1e9:.2f} GB checkpoint to {', '.join(names)}, one read", seconds, "s")
    yield Row("its peak memory without the quantizing child", peak / 1e6, "MB", 400)


def _measure_upstream(checkpoint: Path, place: Path, size: str, say: Callable[[str], None]) -> Iterator[Row]:
    tree = os.environ.get("TAPSTER_LLAMA_CPP")
    if not tree:
        return
    say(f"{size} to BF16 by llama.cpp's script")
    out = place / "upstream.gguf"
    script = Path(tree) / "convert_hf_to_gguf.py"
    started = perf_counter()
    _run([sys.executable, str(script), str(checkpoint), "--outtype", "bf16", "--outfile", str(out)])
    yield Row(f"{size} checkpoint to BF16 by llama.cpp's script", perf_counter() - started, "s")
    out.unlink()


def _convert(checkpoint: Path, place: Path, kind: str, *options: str, out: Path | None = None) -> tuple[float, int]:
    """Seconds and peak bytes of one command."""
    target = out or place / "made.gguf"
    found = tapster_command(
        place,
        "convert",
        str(checkpoint),
        "--to",
        f"gguf:{kind}",
        "--out",
        str(target),
        "--force",
        "--no-sidecars",
        *options,
    )
    if out is None:
        target.unlink()
    return found


def _convert_all(checkpoint: Path, place: Path, names: Sequence[str]) -> tuple[float, int]:
    folder = place / "all"
    targets = [word for name in names for word in ("--to", f"gguf:{name}")]
    found = tapster_command(
        place, "convert", str(checkpoint), *targets, "--out", str(folder), "--no-verify", "--no-sidecars"
    )
    for path in folder.iterdir():
        path.unlink()
    return found


def tapster_command(place: Path, *arguments: str) -> tuple[float, int]:
    """Run a command as a user does: its seconds, imports inside, and its peak bytes. ``place`` is for a file."""
    peak = place / "peak"
    started = perf_counter()
    _run([sys.executable, "-m", "tapster.server.bench.peak", str(peak), *arguments, "--quiet"])
    return perf_counter() - started, int(peak.read_text())


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())[-500:]
        raise EngineError(f"{' '.join(command[:4])} … ended with {done.returncode}: {words}")


def _quantize(source: Path, place: Path) -> float:
    """Seconds from the order to the finished file, by the child process that the converter uses."""
    from ...converters.gguf.quantize import Quantizer

    target = place / "ours.gguf"
    with Quantizer() as quantizer:
        time.sleep(1)  # the child imports what it needs, as it does while a checkpoint is read
        started = perf_counter()
        quantizer.quantize(source, target, "Q4_K_M")
        seconds = perf_counter() - started
    target.unlink()
    return seconds


def _quantize_bare(source: Path, place: Path) -> float:
    """Seconds of the one call of llama.cpp's library."""
    from ...converters.gguf.types import quant_type
    from ...runtime.engines.llamacpp.library import llama
    from ...runtime.engines.local.threads import default_threads

    lib = llama()
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread = quant_type("Q4_K_M").file_type, default_threads()
    target = place / "bare.gguf"
    started = perf_counter()
    if lib.llama_model_quantize(str(source).encode(), str(target).encode(), params):
        raise EngineError("llama_model_quantize failed")
    seconds = perf_counter() - started
    target.unlink()
    return seconds


def _bytes(checkpoint: Path) -> int:
    return sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))


def _write_large(folder: Path, small: Path) -> None:
    """A checkpoint of random bfloat16 weights with the tokenizer of another."""
    folder.mkdir()
    for path in small.iterdir():
        if path.suffix in (".json", ".jinja") and path.name not in ("config.json", "generation_config.json"):
            (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((small / "config.json").read_text())
    config |= {
        "hidden_size": _WIDTH,
        "intermediate_size": _FEED_FORWARD,
        "num_hidden_layers": LARGE_LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _KV_HEADS,
        "head_dim": _WIDTH // _HEADS,
    }
    (folder / "config.json").write_text(json.dumps(config))
    _write_random(folder / "model.safetensors", _shapes(config["vocab_size"]))


def _shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    kv = _WIDTH * _KV_HEADS // _HEADS
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, _WIDTH)}
    for layer in range(LARGE_LAYERS):
        names = {
            "self_attn.q_proj": (_WIDTH, _WIDTH),
            "self_attn.k_proj": (kv, _WIDTH),
            "self_attn.v_proj": (kv, _WIDTH),
            "self_attn.o_proj": (_WIDTH, _WIDTH),
            "mlp.gate_proj": (_FEED_FORWARD, _WIDTH),
            "mlp.up_proj": (_FEED_FORWARD, _WIDTH),
            "mlp.down_proj": (_WIDTH, _FEED_FORWARD),
            "input_layernorm": (_WIDTH,),
            "post_attention_layernorm": (_WIDTH,),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in names.items()}
    return shapes | {"model.norm.weight": (_WIDTH,)}


def _write_random(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header, position = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    random = np.random.default_rng(0)
    block = (random.normal(0, 0.02, 1 << 20).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while position > 0:
            file.write(block.tobytes()[:position])
            position -= block.nbytes
