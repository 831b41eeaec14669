"""What a decoder's graph takes and gives, recognised by the names that the exporters agree on."""

import re
from dataclasses import dataclass

import numpy as np
import onnxruntime

from ...errors import ModelError

LOGITS_FROM = "logits_from"
"""An input that tapster's graphs have: from which new token on logits are computed, -1 for the last one only."""
_PAST = re.compile(r"past_key_values\.(\d+)\.(key|value)")
_TOKENS = {"input_ids", "attention_mask", "position_ids"}
_TYPES = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
}


@dataclass(frozen=True, slots=True)
class CachePart:
    """Keys or values of one layer: (batch, ``heads``, cells, ``width``)."""

    past: str
    present: str
    heads: int
    width: int
    dtype: np.dtype


@dataclass(frozen=True, slots=True)
class Graph:
    """``inputs`` has the dtypes of the token inputs that there are, by name. ``gives_all_rows`` is False where the
    graph computes the last token's logits only; ``can_give_last`` is True where it does so when it is told to."""

    cache: tuple[CachePart, ...]
    inputs: dict[str, np.dtype]
    logits: str
    logits_dtype: np.dtype
    vocab_size: int
    gives_all_rows: bool
    can_give_last: bool = False

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of one token."""
        return sum(part.heads * part.width * part.dtype.itemsize for part in self.cache)


def read_graph(session: onnxruntime.InferenceSession, declared: tuple[int, int] | None) -> Graph:
    """The graph behind a session. ModelError naming an input that a decoder does not have.

    ``declared`` is the number of heads in the cache and their width, for graphs that leave them open.
    """
    outputs = {node.name: node for node in session.get_outputs()}
    cache: list[CachePart] = []
    inputs: dict[str, np.dtype] = {}
    for node in session.get_inputs():
        if found := _PAST.fullmatch(node.name):
            cache.append(_cache_part(node, f"present.{found[1]}.{found[2]}", outputs, declared))
        elif node.name in _TOKENS:
            inputs[node.name] = _dtype(node)
        else:
            raise ModelError(f"the graph has an input {node.name}, which tapster does not know how to feed")
    if "input_ids" not in inputs or not cache:
        missing = "input_ids" if "input_ids" not in inputs else "past_key_values.0.key"
        raise ModelError(f"the graph has no input {missing}: export a decoder with its cache")
    logits = outputs.get("logits")
    if logits is None or not isinstance(logits.shape[-1], int):
        raise ModelError("the graph has no output logits of a fixed width")
    return Graph(
        cache=tuple(cache),
        inputs=inputs,
        logits=logits.name,
        logits_dtype=_dtype(logits),
        vocab_size=logits.shape[-1],
        gives_all_rows=logits.shape[1] != 1,
        can_give_last=any(node.name == LOGITS_FROM for node in session.get_overridable_initializers()),
    )


def _cache_part(
    node: onnxruntime.NodeArg,
    present: str,
    outputs: dict[str, onnxruntime.NodeArg],
    declared: tuple[int, int] | None,
) -> CachePart:
    if present not in outputs:
        raise ModelError(f"the graph has an input {node.name} and no output {present}")
    shape = node.shape
    if len(shape) != 4:
        raise ModelError(f"the input {node.name} has the shape {shape}, expected (batch, heads, cells, width)")
    heads, width = (
        given if isinstance(given, int) else (declared or (None, None))[index]
        for index, given in enumerate((shape[1], shape[3]))
    )
    if heads is None or width is None:
        raise ModelError(f"the input {node.name} leaves its size open and no config.json lies beside the graph")
    return CachePart(node.name, present, heads, width, _dtype(node))


def _dtype(node: onnxruntime.NodeArg) -> np.dtype:
    if node.type not in _TYPES:
        raise ModelError(f"{node.name} is a {node.type}, which the engine does not compute on a CPU")
    return _TYPES[node.type]
