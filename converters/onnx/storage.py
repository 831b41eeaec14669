"""How weights lie in ``model.onnx.data``: which blobs each matrix becomes, and where in the file each blob is.

Every place is known before a byte is written, so the graph needs no weights and workers write independently.
"""

from dataclasses import dataclass
from math import prod

from .decoder import Linear

BLOB_BYTES = {"FLOAT": 4, "FLOAT16": 2, "UINT8": 1}
_LARGE_BYTES, _LARGE_ALIGNMENT, _ALIGNMENT = 1 << 20, 1 << 16, 1 << 12
"""Large blobs begin where Windows can map a file, all others at a page."""


@dataclass(frozen=True, slots=True)
class Format:
    """How a matrix is kept: FLOAT or FLOAT16, or codes of ``bits`` in blocks of ``block`` with a scale each."""

    bits: int
    block: int = 0
    method: str = "rtn"

    @property
    def is_quantized(self) -> bool:
        return self.bits <= 8

    @property
    def label(self) -> str:
        return f"int{self.bits}-g{self.block}" if self.is_quantized else f"fp{self.bits}"


@dataclass(frozen=True, slots=True)
class Blob:
    """A stretch of the data file: one array of ``shape``, of which rows follow each other."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * BLOB_BYTES[self.dtype]

    @property
    def num_bytes(self) -> int:
        return self.shape[0] * self.row_bytes


@dataclass(frozen=True, slots=True)
class StoredMatrix:
    """A matrix of the graph and its blobs: the weights alone, or codes, scales and (of four bits) zero points."""

    name: str
    format: Format
    shape: tuple[int, int]
    blobs: tuple[Blob, ...]


class Layout:
    """Places blobs one after another."""

    def __init__(self) -> None:
        self.num_bytes = 0

    def blob(self, name: str, dtype: str, shape: tuple[int, ...]) -> Blob:
        size = prod(shape) * BLOB_BYTES[dtype]
        alignment = _LARGE_ALIGNMENT if size >= _LARGE_BYTES else _ALIGNMENT
        offset = -(-self.num_bytes // alignment) * alignment
        self.num_bytes = offset + size
        return Blob(name, dtype, shape, offset)

    def matrix(self, linear: Linear, kind: Format) -> StoredMatrix:
        rows, columns = linear.shape
        name = f"{linear.name}.weight"
        if not kind.is_quantized:
            blob = self.blob(name, "FLOAT" if kind.bits == 32 else "FLOAT16", (rows, columns))
            return StoredMatrix(linear.name, kind, linear.shape, (blob,))
        blocks = -(-columns // kind.block)
        blobs = [
            self.blob(f"{name}.codes", "UINT8", (rows, blocks, kind.block * kind.bits // 8)),
            self.blob(f"{name}.scales", "FLOAT", (rows, blocks)),
        ]
        if kind.bits == 4:
            blobs.append(self.blob(f"{name}.zeros", "UINT8", (rows, -(-blocks // 2))))
        return StoredMatrix(linear.name, kind, linear.shape, tuple(blobs))
