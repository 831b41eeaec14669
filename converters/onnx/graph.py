"""The graph of a decoder, in the operators that onnxruntime has kernels of its own for.

Names of inputs and outputs are those of onnxruntime-genai and optimum. Weights stay as the checkpoint has them,
(outputs, inputs), so that they stream straight from file to file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .decoder import Layer, Linear, Norm
from .nodes import CONTRIB, Nodes, declared
from .plan import FolderPlan

if TYPE_CHECKING:
    import onnx_ir as ir

OPSET = 21
IR_VERSION = 10
FIRST_ROW = "logits_from"
"""An input that need not be given: from which position on logits are computed. -1 is the last; 0, all, if absent."""
_INT8_ACTIVATIONS = 4
"""MatMulNBits' ``accuracy_level`` at which activations are rounded to eight bits, block by block: on a CPU several
times as fast as unpacking the weights to floats."""
_END = 2**63 - 1


def build_model(plan: FolderPlan) -> ir.Model:
    """The whole model; its weights are references into the data file."""
    import onnx_ir as ir

    graph = _Graph(plan)
    logits = graph.build()
    return ir.Model(
        ir.Graph(
            [*graph.inputs, graph.first_row],
            [logits, *graph.presents],
            nodes=graph.nodes.nodes,
            initializers=list(graph.nodes.initializers.values()),
            opset_imports={"": OPSET, CONTRIB: 1},
            name=plan.decoder.architecture,
        ),
        ir_version=IR_VERSION,
        producer_name="tapster",
    )


class _Graph:
    """The graph while it grows."""

    def __init__(self, plan: FolderPlan) -> None:
        self._plan = plan
        self._decoder = plan.decoder
        self.nodes = Nodes()
        self._ids = declared("input_ids", "INT64", "batch_size", "sequence_length")
        self._mask = declared("attention_mask", "INT64", "batch_size", "total_sequence_length")
        self._pasts = [self._cache(layer, "past_key_values", "past") for layer in range(len(self._decoder.layers))]
        presents = [self._cache(layer, "present", "total") for layer in range(len(self._decoder.layers))]
        self._presents = presents
        self.inputs = [self._ids, self._mask, *(value for pair in self._pasts for value in pair)]
        self.presents = [value for pair in presents for value in pair]
        self._token_positions: ir.Value | None = None
        self.first_row = self.nodes.array(FIRST_ROW, np.zeros(1, np.int64))

    def _cache(self, layer: int, prefix: str, length: str) -> tuple[ir.Value, ir.Value]:
        shape = ("batch_size", self._decoder.num_kv_heads, f"{length}_sequence_length", self._decoder.head_size)
        return declared(f"{prefix}.{layer}.key", "FLOAT", *shape), declared(f"{prefix}.{layer}.value", "FLOAT", *shape)

    def build(self) -> ir.Value:
        """All nodes; gives the logits."""
        nodes = self.nodes
        self._read_mask()
        hidden = self._embed()
        pending: list[ir.Value] = []
        for index, layer in enumerate(self._decoder.layers):
            hidden, pending = self._layer(index, layer, hidden, pending)
        hidden, _ = self._add_and_norm(hidden, pending, self._decoder.final_norm)
        rows = [hidden, self.first_row, nodes.numbers(_END), nodes.numbers(1)]
        logits = self._matmul(
            self._decoder.head_matrix or self._decoder.embedding, nodes.op("Slice", rows, "logit_rows"), "logits"
        )
        output = declared("logits", "FLOAT", "batch_size", "sequence_length", self._decoder.vocabulary)
        logits.shape, logits.type = output.shape, output.type
        return logits

    def _read_mask(self) -> None:
        """How many tokens each sequence has, less one, and the most of all: what the attention wants to know."""
        nodes, mask = self.nodes, self._mask
        counts = nodes.op("ReduceSum", [mask, nodes.numbers(1)], "token_counts", keepdims=0)
        self._last_position = nodes.op("Sub", [counts, nodes.numbers(1)], "last_positions")
        self._last_positions = nodes.op("Cast", [self._last_position], "last_positions.int32", to=_int32())
        total = nodes.op("Shape", [mask], "total_length", start=1, end=2)
        scalar = nodes.op("Squeeze", [total], "total_length.scalar")
        self._total = nodes.op("Cast", [scalar], "total_length.int32", to=_int32())

    def _embed(self) -> ir.Value:
        decoder, nodes = self._decoder, self.nodes
        matrix = self._plan.matrices[decoder.embedding.name]
        if not matrix.format.is_quantized:
            found = nodes.op("Gather", [nodes.stored(matrix.blobs[0]), self._ids], "embedded")
            return self._as_float(found, matrix.format.bits)
        codes, scales = matrix.blobs[:2]
        flat = nodes.stored(codes, (codes.shape[0], codes.row_bytes), f"{codes.name}.rows")
        found = nodes.op(
            "GatherBlockQuantized",
            [flat, self._ids, nodes.stored(scales)],
            "embedded",
            domain=CONTRIB,
            bits=matrix.format.bits,
            block_size=matrix.format.block,
            gather_axis=0,
            quantize_axis=1,
        )
        if codes.row_bytes * 8 // matrix.format.bits == decoder.hidden:
            return found
        bounds = [nodes.numbers(0), nodes.numbers(decoder.hidden), nodes.numbers(2)]
        return nodes.op("Slice", [found, *bounds], "embedded.unpadded")

    def _layer(
        self, index: int, layer: Layer, hidden: ir.Value, pending: list[ir.Value]
    ) -> tuple[ir.Value, list[ir.Value]]:
        """What has been summed up, and what is still to be added to it: the next norm adds on its way."""
        normed, hidden = self._add_and_norm(hidden, pending, layer.first_norm)
        attended = self._attention(index, layer, normed)
        if layer.second_norm is None:
            return hidden, [attended, self._feed_forward(layer, normed)]
        normed, hidden = self._add_and_norm(hidden, [attended], layer.second_norm)
        return hidden, [self._feed_forward(layer, normed)]

    def _add_and_norm(self, hidden: ir.Value, pending: list[ir.Value], norm: Norm) -> tuple[ir.Value, ir.Value]:
        """The norm of the sum, and the sum itself."""
        while len(pending) > 1:
            hidden, pending = self.nodes.op("Add", [hidden, pending[0]], f"{norm.name}.first_sum"), pending[1:]
        weight = self._norm_weight(norm)
        bias = self._vector(f"{norm.name}.bias", norm.bias.float32()) if norm.bias else None
        epsilon = self._decoder.epsilon
        if not pending:
            inputs = [hidden, weight, *([bias] if bias else [])]
            op_type = "LayerNormalization" if norm.is_layer_norm else "SimplifiedLayerNormalization"
            return self.nodes.op(op_type, inputs, norm.name, axis=-1, epsilon=epsilon, stash_type=1), hidden
        inputs = [hidden, pending[0], weight, *([bias] if bias else [])]
        op_type = "SkipLayerNormalization" if norm.is_layer_norm else "SkipSimplifiedLayerNormalization"
        outputs = [norm.name, "", "", f"{norm.name}.sum"]
        normed, _, _, total = self.nodes.several(op_type, inputs, outputs, domain=CONTRIB, epsilon=epsilon)
        return normed, total

    def _attention(self, index: int, layer: Layer, normed: ir.Value) -> ir.Value:
        decoder, nodes = self._decoder, self.nodes
        projected = [self._linear(linear, normed) for linear in layer.qkv]
        if layer.query_norm and layer.key_norm:
            projected[0] = self._head_norm(projected[0], layer.query_norm, decoder.num_heads)
            projected[1] = self._head_norm(projected[1], layer.key_norm, decoder.num_kv_heads)
        rotates_itself = layer.has_positions and decoder.rotary.fits_attention
        if layer.has_positions and not rotates_itself:
            projected[0] = self._rotate(projected[0], decoder.num_heads)
            projected[1] = self._rotate(projected[1], decoder.num_kv_heads)
        query, key, value = projected if len(projected) == 3 else (projected[0], None, None)
        tables = [nodes.stored(self._plan.cosine), nodes.stored(self._plan.sine)] if rotates_itself else []
        attended, present_key, present_value = nodes.several(
            "GroupQueryAttention",
            [query, key, value, *self._pasts[index], self._last_positions, self._total, *tables],
            [f"model.layers.{index}.attention", f"present.{index}.key", f"present.{index}.value"],
            domain=CONTRIB,
            num_heads=decoder.num_heads,
            kv_num_heads=decoder.num_kv_heads,
            do_rotary=int(rotates_itself),
            local_window_size=layer.window or -1,
        )
        for made, promised in zip((present_key, present_value), self._presents[index], strict=True):
            made.shape, made.type = promised.shape, promised.type
        self.presents[2 * index : 2 * index + 2] = [present_key, present_value]
        return self._linear(layer.output, attended)

    def _rotate(self, projected: ir.Value, num_heads: int) -> ir.Value:
        """Rotary positions by an operator of their own, for numbers of dimensions that the attention does not take."""
        nodes, plan = self.nodes, self._plan
        return nodes.op(
            "RotaryEmbedding",
            [projected, self._positions(), nodes.stored(plan.cosine), nodes.stored(plan.sine)],
            f"{projected.name}.rotated",
            domain=CONTRIB,
            num_heads=num_heads,
            rotary_embedding_dim=self._decoder.rotary.num_dims,
        )

    def _positions(self) -> ir.Value:
        """The position of each token: counted from the sequence's first where it begins here, else up to its last."""
        if self._token_positions is None:
            nodes, one = self.nodes, self.nodes.numbers(1)
            length = nodes.op("Shape", [self._ids], "sequence_length", start=1, end=2)
            earlier = nodes.op("Sub", [nodes.op("Add", [self._last_position, one], "lengths"), length], "earlier")
            starts = nodes.op("Max", [earlier, nodes.numbers(0)], "starts")
            column = nodes.op("Unsqueeze", [starts, one], "starts.column")
            zero = nodes.array("zero", np.array(0, np.int64))
            step = nodes.array("one", np.array(1, np.int64))
            count = nodes.op("Squeeze", [length], "sequence_length.scalar")
            offsets = nodes.op("Range", [zero, count, step], "offsets")
            self._token_positions = nodes.op("Add", [column, offsets], "positions")
        return self._token_positions

    def _head_norm(self, projected: ir.Value, norm: Norm, num_heads: int) -> ir.Value:
        """Norms each head by itself; of several stacked vectors each head has its own."""
        nodes, head = self.nodes, self._decoder.head_size
        split = nodes.op("Reshape", [projected, nodes.numbers(0, 0, num_heads, head)], f"{norm.name}.heads")
        ones = nodes.initializers.get("ones") or nodes.array("ones", np.ones(head, np.float32))
        scale = ones if len(norm.parts) > 1 else self._norm_weight(norm)
        op_type = "LayerNormalization" if norm.is_layer_norm else "SimplifiedLayerNormalization"
        normed = nodes.op(
            op_type, [split, scale], f"{norm.name}.normed", axis=-1, epsilon=self._decoder.epsilon, stash_type=1
        )
        if len(norm.parts) > 1:
            normed = nodes.op("Mul", [normed, self._norm_weight(norm)], f"{norm.name}.scaled")
        return nodes.op("Reshape", [normed, nodes.numbers(0, 0, num_heads * head)], norm.name)

    def _feed_forward(self, layer: Layer, normed: ir.Value) -> ir.Value:
        nodes, name = self.nodes, layer.up.name
        up = self._linear(layer.up, normed)
        if layer.gate is None:
            positive = nodes.op("Relu", [up], f"{name}.relu")
            return self._linear(layer.down, nodes.op("Mul", [positive, positive], f"{name}.squared"))
        gate = self._linear(layer.gate, normed)
        silu = nodes.op("QuickGelu", [gate], f"{layer.gate.name}.silu", domain=CONTRIB, alpha=1.0)
        return self._linear(layer.down, nodes.op("Mul", [silu, up], f"{name}.gated"))

    def _linear(self, linear: Linear, values: ir.Value) -> ir.Value:
        return self._matmul(linear, values, linear.name)

    def _matmul(self, linear: Linear, values: ir.Value, name: str) -> ir.Value:
        nodes, matrix = self.nodes, self._plan.matrices[linear.name]
        bias = None
        if linear.bias:
            bias = self._vector(f"{linear.name}.bias", np.concatenate([part.float32() for part in linear.bias]))
        if not matrix.format.is_quantized:
            weight = self._as_float(nodes.stored(matrix.blobs[0]), matrix.format.bits)
            product = nodes.op(
                "FusedMatMul", [values, weight], f"{name}.product" if bias else name, domain=CONTRIB, transB=1
            )
            return nodes.op("Add", [product, bias], name) if bias else product
        blobs = [nodes.stored(blob) for blob in matrix.blobs]
        return nodes.op(
            "MatMulNBits",
            [values, *blobs, *([None] * (5 - 1 - len(blobs)) + [bias] if bias else [])],
            name,
            domain=CONTRIB,
            N=matrix.shape[0],
            K=matrix.shape[1],
            bits=matrix.format.bits,
            block_size=matrix.format.block,
            accuracy_level=_INT8_ACTIVATIONS,
        )

    def _as_float(self, value: ir.Value, bits: int) -> ir.Value:
        """Float16 is for storage: onnxruntime turns such weights to float32 once, when it loads the model."""
        if bits == 32:
            return value
        name = f"{value.name}.float32"
        made = next((node.outputs[0] for node in reversed(self.nodes.nodes) if node.name == name), None)
        return made or self.nodes.op("Cast", [value], name, to=_float32())

    def _norm_weight(self, norm: Norm) -> ir.Value:
        rows = [part.float32() for part in norm.parts]
        return self._vector(f"{norm.name}.weight", np.stack(rows) if len(rows) > 1 else rows[0])

    def _vector(self, name: str, values: np.ndarray) -> ir.Value:
        return self.nodes.initializers.get(name) or self.nodes.array(name, np.ascontiguousarray(values))


def _int32() -> int:
    import onnx_ir as ir

    return int(ir.DataType.INT32)


def _float32() -> int:
    import onnx_ir as ir

    return int(ir.DataType.FLOAT)
