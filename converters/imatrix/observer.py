"""Watches a model compute and sums the squares of what meets each weight.

What counts is what llama-imatrix counts: products with the weights of the layers (``blk.``) by at least 16 tokens in
float32, so neither the output layer nor single tokens. Source: ``IMatrixCollector::collect_imatrix`` of llama.cpp.
"""

import numpy as np

from .graph import Node, Operations, floats, integers, operations

Sums = dict[str, tuple[np.ndarray, np.ndarray]]
"""By weight: sums of squares, float64 (experts, columns), and how many tokens they are of, int64 (experts,)."""

MIN_TOKENS = 16
_F32 = 0
_LAYERS = b"blk."


class Observer:
    """``callback(node, ask, _)`` is llama.cpp's evaluation callback; ``take`` gives what came together since.

    No exception may pass through C code: the first one is kept in ``error``, and the computation is given up.
    """

    def __init__(self) -> None:
        self._ops: Operations = operations()
        self._sums: Sums = {}
        self._last: tuple[int, np.ndarray] | None = None
        self._final: bytes | None = None
        self._latest: bytes = b""
        self.error: BaseException | None = None
        self.stopped = False

    def callback(self, address: int, ask: bool, _user_data: int | None) -> bool:
        """Asked: whether this node is wanted. Told: whether to go on, which after the last wanted one is no use."""
        try:
            if ask:
                return self._wants(Node.from_address(address))
            self._add(Node.from_address(address))
            return not self.stopped and self._latest != self._final
        except BaseException as error:  # noqa: BLE001  ctypes would print it and go on
            self.error = self.error or error
            return False

    def take(self) -> Sums:
        """The sums since the last call, which was before the first token of this step. Raises what went wrong."""
        if self.error is not None:
            raise self.error
        sums, self._sums, self._last = self._sums, {}, None
        if sums:
            self._final = self._latest
        return sums

    def _wants(self, node: Node) -> bool:
        if node.op == self._ops.experts:
            return True
        if node.op != self._ops.product:
            return False
        rows = Node.from_address(node.src[1])
        is_layer = _plain(Node.from_address(node.src[0]).name).startswith(_LAYERS)
        return is_layer and rows.type == _F32 and rows.ne[1] >= MIN_TOKENS

    def _add(self, node: Node) -> None:
        weight, rows = Node.from_address(node.src[0]), Node.from_address(node.src[1])
        self._latest = _plain(weight.name)
        if node.op == self._ops.experts:
            added = _expert_squares(floats(rows), integers(Node.from_address(node.src[2])), weight.ne[2])
        else:
            added = self._squares(node.src[1], rows, weight)
        name = self._latest.decode("utf-8", "replace")
        if name in self._sums:
            sums, counts = self._sums[name]
            added = (sums + added[0], counts + added[1])
        self._sums[name] = added

    def _squares(self, address: int, rows: Node, weight: Node) -> tuple[np.ndarray, np.ndarray]:
        """Query, key and value have the same input, gate and up too: what was just summed is not summed again."""
        num_matrices = weight.ne[2] * weight.ne[3]
        if self._last is None or self._last[0] != address or len(self._last[1]) != num_matrices:
            self._last = (address, squares(floats(rows), (weight.ne[3], weight.ne[2])))
        num_rows = rows.ne[1] * rows.ne[2] * rows.ne[3]
        return self._last[1], np.array([num_rows // num_matrices])


def squares(rows: np.ndarray, matrices: tuple[int, int]) -> np.ndarray:
    """Sums of squares of the columns of (n3, n2, rows, columns), for each of a weight's m3 times m2 matrices.

    Activations in more dimensions than the weight are taken together: llama.cpp repeats the weight for them.
    """
    m3, m2 = matrices
    sums = np.zeros((m3, m2, rows.shape[-1]))
    for i3, i2 in np.ndindex(rows.shape[:2]):
        part = rows[i3, i2]
        sums[i3 % m3, i2 % m2] += np.einsum("ij,ij->j", part, part)
    return sums.reshape(m3 * m2, -1)


def _expert_squares(rows: np.ndarray, ids: np.ndarray, num_experts: int) -> tuple[np.ndarray, np.ndarray]:
    """The same per expert. ``rows`` (1, tokens, 1 or used, columns), ``ids`` (1, 1, tokens, used)."""
    chosen, used = ids[0, 0], ids.shape[-1]
    inputs = np.broadcast_to(rows[0], (rows.shape[1], used, rows.shape[3]))
    sums = np.zeros((num_experts, rows.shape[3]))
    for expert in np.unique(chosen):
        met = inputs[chosen == expert]
        sums[expert] = np.einsum("ij,ij->j", met, met)
    return sums, np.bincount(chosen.reshape(-1), minlength=num_experts)


def _plain(name: bytes) -> bytes:
    """A weight's own name: the scheduler calls copies ``CUDA0#blk.0.attn_k.weight#0``."""
    parts = name.split(b"#")
    return parts[1] if len(parts) > 1 else name
