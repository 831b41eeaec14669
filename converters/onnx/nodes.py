"""Make the nodes of an ONNX graph: each call is one operation, and gives the values that come out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from .storage import Blob

CONTRIB = "com.microsoft"
"""The domain of onnxruntime's own operators."""
DATA_FILE = "model.onnx.data"


class Nodes:
    """A graph being made."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}

    def op(
        self, op_type: str, inputs: Sequence[ir.Value | None], name: str, *, domain: str = "", **attributes: Any
    ) -> ir.Value:
        """A node with one result, which is called like the node."""
        return self.several(op_type, inputs, [name], domain=domain, **attributes)[0]

    def several(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        outputs: list[str],
        *,
        domain: str = "",
        **attributes: Any,
    ) -> list[ir.Value]:
        """A node with several results; one without a name is not wanted."""
        import onnx_ir as ir

        values = [ir.Value(name=name) for name in outputs]
        node = ir.node(op_type, inputs, attributes, domain=domain, outputs=values, name=outputs[0])
        self.nodes.append(node)
        return values

    def array(self, name: str, array: np.ndarray) -> ir.Value:
        """A small constant, kept in the graph itself."""
        import onnx_ir as ir

        return self._initializer(name, ir.tensor(array, name=name))

    def numbers(self, *values: int) -> ir.Value:
        """A constant list of whole numbers."""
        name = f"constant.{'_'.join(map(str, values))}"
        return self.initializers.get(name) or self.array(name, np.array(values, np.int64))

    def stored(self, blob: Blob, shape: tuple[int, ...] | None = None, name: str | None = None) -> ir.Value:
        """A constant in the data file, if need be seen in another shape and under another name."""
        import onnx_ir as ir

        name = name or blob.name
        if name in self.initializers:
            return self.initializers[name]
        tensor = ir.ExternalTensor(
            DATA_FILE,
            blob.offset,
            blob.num_bytes,
            ir.DataType[blob.dtype],
            shape=ir.Shape(shape or blob.shape),
            name=name,
        )
        return self._initializer(name, tensor)

    def _initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        import onnx_ir as ir

        shape = ir.Shape(tensor.shape.numpy())
        value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.initializers[name] = value
        return value


def declared(name: str, dtype: str, *shape: int | str) -> ir.Value:
    """An input or output of the graph. A text is a dimension that is known only when the model runs."""
    import onnx_ir as ir

    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType[dtype]))
