"""What a run of the command has left: its card, and a model that answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tapster.runtime.models import find_model
from tapster.runtime.runtime import Runtime
from tapster.runtime.sampling import SamplingParams
from tapster.server.commands.checkpoints import checkpoint_folder

if TYPE_CHECKING:
    from tapster.runtime.text.types import Answer


def settings(values: Mapping[str, object]) -> list[str]:
    """As options of the command."""
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def card(run: Path) -> str:
    return (run / "model" / "README.md").read_text(encoding="utf-8")


def few_layers(folder: Path, count: int) -> Path:
    """The demo model with ``count`` of its layers, evenly spread, as a checkpoint in ``folder``."""
    from torch.nn import ModuleList
    from transformers import AutoModelForCausalLM, AutoTokenizer

    demo = checkpoint_folder("demo", quiet=True)
    model = AutoModelForCausalLM.from_pretrained(demo)
    layers = model.model.layers
    model.model.layers = ModuleList(layers[round(i * (len(layers) - 1) / (count - 1))] for i in range(count))
    model.config.num_hidden_layers = count
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(demo).save_pretrained(folder)
    return folder


async def ask(model: Path, question: str, max_tokens: int = 32) -> Answer:
    """Of a result, as ``tapster serve`` and ``tapster chat`` open it."""
    runtime = Runtime.load(find_model(str(model)))
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    try:
        [stream] = runtime.chat([{"role": "user", "content": question}], params)
        return await stream.collect()
    finally:
        runtime.close()
