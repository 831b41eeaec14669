"""Which format each matrix of a model gets, and its place in the data file."""

from dataclasses import dataclass

from .decoder import Decoder, Linear
from .options import DEFAULT_GROUP_SIZE, DEFAULT_METHOD, OnnxOptions
from .storage import Blob, Format, Layout, StoredMatrix

_TABLE_BLOCK = 32


@dataclass(frozen=True)
class FolderPlan:
    """Everything about a folder's weights but the weights. ``cosine`` and ``sine`` are the tables of positions."""

    decoder: Decoder
    linears: tuple[Linear, ...]
    matrices: dict[str, StoredMatrix]
    cosine: Blob
    sine: Blob
    data_bytes: int
    fallbacks: dict[str, str]


def plan_folder(decoder: Decoder, options: OnnxOptions) -> FolderPlan:
    """The layout of ``model.onnx.data``: embedding, layers, output, tables."""
    layout = Layout()
    body, table = _formats(options)
    linears = tuple(_linears(decoder))
    tables = {decoder.embedding.name, "lm_head"}
    matrices = {linear.name: layout.matrix(linear, table if linear.name in tables else body) for linear in linears}
    shape = (decoder.context, len(decoder.rotary.frequencies))
    cosine, sine = layout.blob("cosine", "FLOAT", shape), layout.blob("sine", "FLOAT", shape)
    return FolderPlan(decoder, linears, matrices, cosine, sine, layout.num_bytes, {})


def _formats(options: OnnxOptions) -> tuple[Format, Format]:
    """That of the layers, and that of the embedding and the output, where eight bits cost little and save much."""
    if not options.type.startswith("int"):
        plain = Format(int(options.type.removeprefix("fp")))
        return plain, plain
    block = options.group_size or DEFAULT_GROUP_SIZE
    bits = int(options.type.removeprefix("int"))
    method = options.method or DEFAULT_METHOD if bits == 4 else "rtn"
    return Format(bits, block, method), Format(8, _TABLE_BLOCK)


def _linears(decoder: Decoder) -> list[Linear]:
    linears = [decoder.embedding]
    for layer in decoder.layers:
        gate = (layer.gate,) if layer.gate else ()
        linears += [*layer.qkv, layer.output, *gate, layer.up, layer.down]
    if decoder.head_matrix:
        linears.append(decoder.head_matrix)
    return linears
