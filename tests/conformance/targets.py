"""What is served when no URL is given: one model, once for each engine, and for some in several precisions."""

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from made_artifacts import CHECKPOINT, artifact, checkpoint, demo_file

OPTIONS = ("--context", "2048", "--chat-template", str(Path(__file__).with_name("thinking.jinja")))
"""The model's own template, and one thing more: it knows reasoning, so that the rule about it can be tested."""
_FOR_VLLM = ("--", "--enforce-eager", "--max-num-seqs", "16")
"""Else it compiles for minutes before it answers."""
ON_A_CPU = sys.platform != "darwin"
"""Where mlx computes a few tokens a second."""


@dataclass(frozen=True)
class Target:
    """An artifact behind an engine.

    ``made`` is what ``tapster convert --to`` makes it with (CHECKPOINT for the checkpoint itself). ``nats`` is how far
    its log-probabilities may be from the float reference on average, and ``top1`` how often the most likely token has
    to be the same. Only an engine's first target answers the tests that do not ask about precision; a slow one, in a
    run of all engines, only those about stops.
    """

    name: str
    engine: str
    made: str | None = None
    nats: float = 0.0
    top1: float = 0.0
    needs: tuple[str, ...] = ()
    is_first: bool = True
    is_slow: bool = False
    url: str | None = None

    def model(self) -> str:
        """What to serve, made when it is not there yet. Skips when something is not installed."""
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            pytest.skip(f"{missing[0]} is not installed: pip install 'tapster[{self.engine}]'")
        if self.engine == "vllm" and not os.environ.get("TAPSTER_VLLM_PYTHON"):
            pytest.skip("TAPSTER_VLLM_PYTHON does not say which interpreter has vLLM")
        if self.made is None:
            return str(demo_file())
        return str(checkpoint() if self.made == CHECKPOINT else artifact(self.made))

    def options(self) -> tuple[str, ...]:
        """The last arguments of ``tapster serve``."""
        engine = () if self.engine == "llama.cpp" else ("--engine", self.engine)
        return (*OPTIONS, *engine, *(_FOR_VLLM if self.engine == "vllm" else ()))


TARGETS = (
    Target("llama.cpp-q4_1", "llama.cpp", nats=0.1, top1=0.95),
    Target("transformers", "transformers", CHECKPOINT, nats=0.005, top1=0.99, needs=("torch", "transformers")),
    Target("onnx-int4", "onnx", "onnx:int4", nats=0.93, top1=0.7, needs=("onnxruntime", "onnx_ir")),
    Target("onnx-fp32", "onnx", "onnx:fp32", nats=0.005, top1=0.99, needs=("onnxruntime", "onnx_ir"), is_first=False),
    Target("mlx-4bit", "mlx", "mlx:4bit", nats=1.04, top1=0.7, needs=("mlx", "mlx_lm"), is_slow=ON_A_CPU),
    Target(
        "mlx-8bit", "mlx", "mlx:8bit", nats=0.057, top1=0.95, needs=("mlx", "mlx_lm"), is_first=False, is_slow=ON_A_CPU
    ),
    Target("vllm", "vllm", CHECKPOINT, nats=0.1, top1=0.95),
)
"""Rounding the weights alone, computed with transformers in 32-bit floats on the same texts, costs 0.69 nats on average
for 4 bits in groups of 64 with a minimum, 0.62 for 4 symmetric bits in groups of 32, and 0.038 for 8 bits in groups of
64: the bounds are one and a half times that. So much is lost because the model is small and was of 4 bits before."""
