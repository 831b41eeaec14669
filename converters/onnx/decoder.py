"""What a decoder computes: all that the graph writer needs to know about a model, and nothing of its weights."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..checkpoint.safetensors import CheckpointTensor


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotary positions: the first ``2 * len(frequencies)`` dimensions of each head turn, half against half.

    ``frequencies`` are radians a token, float32; ``scale`` multiplies cosine and sine (YaRN).
    """

    frequencies: np.ndarray
    scale: float = 1.0

    @property
    def num_dims(self) -> int:
        return 2 * len(self.frequencies)

    @property
    def fits_attention(self) -> bool:
        """Whether onnxruntime's attention can turn this many dimensions itself."""
        return len(self.frequencies) % 8 == 0


@dataclass(frozen=True, slots=True)
class Linear:
    """A matrix whose rows may come from several tensors, one after another, and its bias if it has one."""

    name: str
    parts: tuple[CheckpointTensor, ...]
    bias: tuple[CheckpointTensor, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs, inputs."""
        return sum(part.shape[0] for part in self.parts), self.parts[0].shape[1]


@dataclass(frozen=True, slots=True)
class Norm:
    """RMS normalisation, or with ``is_layer_norm`` the one that subtracts the mean. ``parts`` are heads to stack."""

    name: str
    parts: tuple[CheckpointTensor, ...]
    bias: CheckpointTensor | None = None
    is_layer_norm: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. ``qkv`` is query, key and value: one matrix together, or three. Without a ``gate`` the feed-forward
    network is ReLU² of ``up``; with one it is SiLU of the gate times ``up``.

    Without a ``second_norm`` attention and feed-forward network work side by side on the first norm's result.
    ``window`` is how many tokens, itself included, one looks back at.
    """

    first_norm: Norm
    qkv: tuple[Linear, ...]
    output: Linear
    up: Linear
    down: Linear
    gate: Linear | None = None
    second_norm: Norm | None = None
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    has_positions: bool = True
    window: int | None = None


@dataclass(frozen=True)
class Decoder:
    """A whole model. ``head_matrix`` is None where the output shares the embedding's weights."""

    architecture: str
    vocabulary: int
    hidden: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    context: int
    epsilon: float
    rotary: Rotary
    embedding: Linear
    layers: tuple[Layer, ...]
    final_norm: Norm
    head_matrix: Linear | None
    notes: list[str] = field(default_factory=list)

    def norms(self) -> Iterator[Norm]:
        """All of them, in the order of the model."""
        for layer in self.layers:
            yield from filter(None, (layer.first_norm, layer.query_norm, layer.key_norm, layer.second_norm))
        yield self.final_norm
