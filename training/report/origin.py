"""What a model of a recipe is called elsewhere: cards are read by those who have neither tapster nor this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...runtime.errors import ModelError
from ...runtime.gguf_facts import GGUFFacts
from ...runtime.resolve import DEMO_MODEL, is_hub_name, resolve_model


@dataclass(frozen=True, slots=True)
class Origin:
    """``hub``: its name on the Hub, where it is known. ``quantization``: of the file that its weights are read from, as
    GGUF calls it; None for a checkpoint."""

    name: str
    hub: str | None = None
    quantization: str | None = None

    def text(self) -> str:
        return f"`{self.name}`" + (f" (dequantized from {self.quantization})" if self.quantization else "")


def origin_of(spec: str) -> Origin:
    """Of a model as recipes name one; nothing is fetched for it."""
    path, (before, _, quantization) = Path(spec).expanduser(), spec.rpartition(":")
    if (path / "config.json").is_file():
        return Origin(path.resolve().name)
    if spec == "demo" or path.exists() or (before and Path(before).expanduser().is_dir()):
        return _of_gguf(spec)
    if not is_hub_name(spec):
        return Origin(path.name or spec)
    return Origin(before, before, quantization) if before else Origin(spec, spec)


def _of_gguf(spec: str) -> Origin:
    hub = DEMO_MODEL if spec == "demo" else None
    try:
        file = resolve_model(spec, formats=("gguf",), progress=False)
        return Origin(hub or file.name, hub, GGUFFacts(file).file_type())
    except ModelError:  # it is gone, and the card is written all the same
        return Origin(hub or Path(spec).name, hub)
