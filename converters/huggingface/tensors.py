"""The tensors of a GGUF file under transformers' names, in transformers' order, a few rows at a time."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...runtime.errors import ConversionError
from ..gguf.plan import CHUNK_ELEMENTS, row_chunks
from ..gguf.reader import GGUFTensor, GGUFTensors
from ..targets import HF_TYPES
from .config import Keys
from .families import Family, family_of

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output_norm.bias": "model.norm.bias",
    "output.weight": "lm_head.weight",
}
_IN_CONFIG = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_LAYER_TENSOR = re.compile(r"blk\.(\d+)\.([a-z0-9_]+)\.(weight|bias)")


@dataclass(frozen=True)
class OutTensor:
    """One tensor to write: ``source`` or some of its rows, put into order, less ``offset``.

    ``head_dim`` is the number of rows that are reordered together; None: they stay as they are.
    """

    name: str
    shape: tuple[int, ...]
    source: GGUFTensor
    rows: slice | None = None
    head_dim: int | None = None
    offset: float = 0.0

    @property
    def source_bytes(self) -> int:
        """How much of the GGUF file it takes up."""
        part = 1 if self.rows is None else self.source.num_rows
        return self.source.num_bytes // part

    def chunks(self) -> Iterator[np.ndarray]:
        """The values one after the other, flat, in float32."""
        source, unit = self.source, self.head_dim or 1
        if len(source.shape) == 1:
            yield self._arranged(source.float32().reshape(-1, 1)).reshape(-1)
            return
        if self.rows is not None:
            yield source.float32(self.rows).reshape(-1)
            return
        for units in row_chunks(source.num_rows // unit, source.row_elements * unit, CHUNK_ELEMENTS):
            yield self._arranged(source.float32(slice(units.start * unit, units.stop * unit))).reshape(-1)

    def _arranged(self, values: np.ndarray) -> np.ndarray:
        if self.head_dim:
            pairs = values.reshape(-1, self.head_dim // 2, 2, values.shape[-1])
            values = np.ascontiguousarray(pairs.swapaxes(1, 2))
        return values - np.float32(self.offset) if self.offset else values


def own_type(model: GGUFTensors) -> str:
    """Which of HF_TYPES the most of a model in 16 or 32 bits is in; BF16 for a quantized one."""
    num_bytes: Counter[str] = Counter()
    for tensor in model.values():
        num_bytes[tensor.type] += tensor.num_bytes
    if not num_bytes or not num_bytes.keys() <= set(HF_TYPES):
        return "BF16"
    return num_bytes.most_common(1)[0][0]


def out_tensors(model: GGUFTensors) -> list[OutTensor]:
    """Every tensor of the model. ConversionError for one that transformers' architecture has no place for."""
    keys = Keys(model)
    family = family_of(keys.architecture)
    _require_all(model, keys.count("block_count"))
    return [out for name in model if name not in _IN_CONFIG for out in _named(model[name], keys, family)]


def _require_all(model: GGUFTensors, num_layers: int) -> None:
    """transformers fills what is missing with random numbers, so every layer must have what the first one has."""
    layers: dict[int, set[str]] = {}
    for match in filter(None, map(_LAYER_TENSOR.fullmatch, model)):
        layers.setdefault(int(match[1]), set()).add(f"{match[2]}.{match[3]}")
    names = {"token_embd.weight", "output_norm.weight"}
    names |= {f"blk.{layer}.{name}" for layer in range(num_layers) for name in layers.get(0, ["attn_norm.weight"])}
    if missing := sorted(names - model.keys()):
        raise ConversionError(f"{model.path} lacks {len(missing)} tensors, first {missing[0]}: download it again")
    if len(layers) > num_layers:
        raise ConversionError(f"{model.path} has {len(layers)} layers and says that it has {num_layers}")


def _named(tensor: GGUFTensor, keys: Keys, family: Family) -> list[OutTensor]:
    if tensor.name in _TOP:
        offset = family.norm_offset if "norm" in tensor.name else 0.0
        return [OutTensor(_TOP[tensor.name], tensor.shape, tensor, offset=offset)]
    match = _LAYER_TENSOR.fullmatch(tensor.name)
    if match is None or match[2] not in family.layer:
        raise ConversionError(f"{keys.model.path} has the tensor {tensor.name}, which {family.name} has no place for")
    layer, stem, kind = match.groups()
    name = f"model.layers.{layer}.{family.layer[stem]}"
    if name.endswith(".norms"):
        shape = (tensor.shape[-1],)
        return [
            OutTensor(f"{name}.{head}.{kind}", shape, tensor, rows=slice(head, head + 1))
            for head in range(tensor.num_rows)
        ]
    is_permuted = family.is_permuted and stem in ("attn_q", "attn_k")
    if is_permuted and tensor.shape[0] % keys.head_dim:
        raise ConversionError(f"{tensor.name} has {tensor.shape[0]} rows, no multiple of the head size {keys.head_dim}")
    return [
        OutTensor(
            f"{name}.{kind}",
            tensor.shape,
            tensor,
            head_dim=keys.head_dim if is_permuted else None,
            offset=family.norm_offset if stem.endswith("norm") else 0.0,
        )
    ]
