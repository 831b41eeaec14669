"""Stream weights from the mapped checkpoint into the data file, some rows at a time, by all cores at once."""

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np

from ...runtime.errors import ConversionError
from ..checkpoint.dtypes import all_finite, to_float32
from ..checkpoint.safetensors import CheckpointTensor
from ..gguf.plan import row_chunks
from ..workspace import require_space
from .packing import pack_codes, pack_zeros
from .plan import FolderPlan
from .quantize import in_blocks, k_quant, round_to_nearest, symmetric_8_bit
from .rope import cosine_and_sine
from .storage import Blob, Format, StoredMatrix

MAX_WORKERS = 8
_TASK_ELEMENTS = 1 << 20
"""Rows that one task works on: a few megabytes in float32."""
MAX_F16 = 65504.0


@dataclass(frozen=True, slots=True)
class _Task:
    """Some rows of one tensor, which is part of a matrix and begins there at ``first_row``."""

    source: CheckpointTensor
    matrix: StoredMatrix
    first_row: int
    rows: slice


class DataFile:
    """``model.onnx.data`` while it is written."""

    def __init__(self, path: Path, num_bytes: int, *, clamp: bool) -> None:
        self._path = path
        self._num_bytes = num_bytes
        self._clamp = clamp
        self._lock = Lock()
        self.clamped: dict[str, int] = {}

    def write(self, plan: FolderPlan, advance: Callable[[float], None]) -> None:
        """All blobs of the plan; ``advance`` hears how many bytes of the checkpoint have been read."""
        require_space(self._path.parent, self._num_bytes, self._path.name)
        with self._errors():
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            with self._errors():
                os.truncate(descriptor, self._num_bytes)
            self._write_tables(descriptor, plan)
            self._write_matrices(descriptor, plan, advance)
        finally:
            os.close(descriptor)

    def _write_matrices(self, descriptor: int, plan: FolderPlan, advance: Callable[[float], None]) -> None:
        pool = ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1), thread_name_prefix="onnx-writer")
        try:
            futures = [pool.submit(self._write_rows, descriptor, task) for task in _tasks(plan)]
            for future in futures:
                advance(future.result())
        finally:
            pool.shutdown(cancel_futures=True)

    def _write_tables(self, descriptor: int, plan: FolderPlan) -> None:
        for rows in row_chunks(plan.cosine.shape[0], plan.cosine.shape[1], _TASK_ELEMENTS):
            tables = cosine_and_sine(plan.decoder.rotary, rows)
            for blob, table in zip((plan.cosine, plan.sine), tables, strict=True):
                self._put(descriptor, blob, rows.start, table)

    def _write_rows(self, descriptor: int, task: _Task) -> int:
        bits = task.source.bits()[task.rows]
        if not all_finite(bits, task.source.dtype):
            raise ConversionError(
                f"the tensor {task.source.name} has an infinity or NaN: its checkpoint is damaged or its training "
                f"diverged; take an earlier checkpoint"
            )
        arrays = self._encoded(to_float32(bits, task.source.dtype), task)
        for blob, array in zip(task.matrix.blobs, arrays, strict=True):
            self._put(descriptor, blob, task.first_row + task.rows.start, array)
        start = task.rows.start * bits.strides[0]
        task.source.release(start, start + bits.nbytes)
        return bits.nbytes

    def _encoded(self, values: np.ndarray, task: _Task) -> tuple[np.ndarray, ...]:
        kind = task.matrix.format
        if kind.is_quantized:
            return encode(values, kind)
        return (values if kind.bits == 32 else self._float16(values, task.source.name),)

    def _float16(self, values: np.ndarray, name: str) -> np.ndarray:
        largest = max(values.max(initial=0), -values.min(initial=0))
        if largest > MAX_F16:
            if not self._clamp:
                raise ConversionError(
                    f"the tensor {name} has the value {largest:g}, beyond float16's {MAX_F16:g}: convert to onnx:fp32, "
                    f"or allow such values to be cut off with --clamp"
                )
            with self._lock:
                self.clamped[name] = self.clamped.get(name, 0) + int(np.count_nonzero(np.abs(values) > MAX_F16))
            values = np.clip(values, -MAX_F16, MAX_F16)
        return values.astype(np.float16)

    def _put(self, descriptor: int, blob: Blob, first_row: int, array: np.ndarray) -> None:
        view = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        position = blob.offset + first_row * blob.row_bytes
        with self._errors():
            while view:
                written = os.pwrite(descriptor, view, position)
                view, position = view[written:], position + written

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ConversionError(
                    f"the disk is full: {self._path.name} needs {self._num_bytes / 1e9:.1f} GB in "
                    f"{self._path.parent}; make room, or choose another place with --out"
                ) from error
            raise ConversionError(f"cannot write {self._path}: {error.strerror}") from error


def encode(values: np.ndarray, kind: Format) -> tuple[np.ndarray, ...]:
    """Rows of weights as the arrays of their blobs."""
    blocks = in_blocks(values, kind.block)
    if kind.bits == 8:
        made = symmetric_8_bit(blocks)
        return made.codes, made.scales
    made = k_quant(blocks) if kind.method == "k-quant" else round_to_nearest(blocks)
    assert made.zeros is not None
    return pack_codes(made.codes, kind.bits), made.scales, pack_zeros(made.zeros)


def _tasks(plan: FolderPlan) -> Iterator[_Task]:
    for linear in plan.linears:
        matrix, first_row = plan.matrices[linear.name], 0
        for part in linear.parts:
            for rows in row_chunks(part.shape[0], part.shape[1], _TASK_ELEMENTS):
                yield _Task(part, matrix, first_row, rows)
            first_row += part.shape[0]
