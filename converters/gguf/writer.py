"""Write the GGUF files of a plan: the header, then the tensors a few rows at a time, by all cores at once.

Every tensor's place in the file is known before the first byte of it is read, so each worker reads, checks,
encodes and writes its own rows; the files come out the same whichever worker is faster. Several files of one plan
share one read of the checkpoint. What has been read is given back at once, so resident memory stays small.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np

from ...runtime.errors import ConversionError
from ...runtime.ggml_types import FILE_TYPES
from ..checkpoint.dtypes import all_finite
from ..workspace import require_space
from . import ggml
from .encode import DIRECT_TYPES, MAX_F16, encode, is_already, largest
from .header import Slot, aligned, pack_header, place_tensors
from .plan import ModelPlan, TensorPlan, row_chunks

QUANTIZATION_VERSION = 2
"""ggml's ``GGML_QNT_VERSION``: the layout of quantized blocks."""
MAX_WORKERS = 4
_TASK_BYTES = 16 << 20
"""How much of the checkpoint one task reads. Its pages are given back when it is done."""
_FILE_TYPE_IDS = {name: type_id for type_id, name in FILE_TYPES.items()}


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What was written. ``fallbacks`` are the tensors whose rows are no whole blocks, and the type they got;
    ``clamped`` counts the elements that were beyond float16, by tensor."""

    fallbacks: dict[str, str]
    clamped: dict[str, int]
    bytes_written: int
    seconds: float


def write_gguf(
    path: Path, plan: ModelPlan, type_name: str, *, clamp: bool = False, advance: Callable[[int], None] = lambda _: None
) -> WriteReport:
    """Write one file of the type F32, F16, BF16 or Q8_0; ``advance`` hears how many bytes have been read.

    ``path`` is written in place: a caller who wants it whole or not at all gives a temporary name. ConversionError
    for a full disk, for an infinity or no number in the checkpoint, and for what float16 cannot hold without ``clamp``.
    """
    return write_ggufs([(path, type_name)], plan, clamp=clamp, advance=advance)[0]


def write_ggufs(
    targets: Sequence[tuple[Path, str]],
    plan: ModelPlan,
    *,
    clamp: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> list[WriteReport]:
    """The same for several files from one read of the checkpoint."""
    started = time.perf_counter()
    with ExitStack() as stack:
        files = [stack.enter_context(_opened(path, plan, type_name)) for path, type_name in targets]
        _write_tensors(plan.tensors, files, clamp, advance)
    seconds = time.perf_counter() - started
    return [WriteReport(file.fallbacks, dict(file.clamped), file.size, seconds) for file in files]


def stored_type(tensor: TensorPlan, file_type: str) -> str:
    """The type a tensor has in a file of this type: one dimension stays F32, rows of no whole blocks become F16."""
    wanted = tensor.keep or ("F32" if len(tensor.shape) <= 1 else file_type)
    return "F16" if tensor.row_elements % ggml.ggml_type(wanted).block_size else wanted


@dataclass
class _File:
    """One file while it is written."""

    path: Path
    descriptor: int
    slots: dict[str, Slot]
    data_start: int
    size: int
    fallbacks: dict[str, str]
    clamped: dict[str, int] = field(default_factory=dict)

    def write(self, data: bytes | np.ndarray, position: int) -> None:
        """Write all of ``data`` at ``position`` of the file."""
        view = memoryview(data) if isinstance(data, bytes) else data.reshape(-1).view(np.uint8).data
        with _write_errors(self.path, self.size):
            while view:
                written = os.pwrite(self.descriptor, view, position)
                view, position = view[written:], position + written


@contextmanager
def _opened(path: Path, plan: ModelPlan, type_name: str) -> Iterator[_File]:
    """The file, of its full size and with its header."""
    if type_name not in DIRECT_TYPES:
        raise ConversionError(f"the type {type_name} is not written directly, only {', '.join(DIRECT_TYPES)}")
    types = {tensor.name: stored_type(tensor, type_name) for tensor in plan.tensors}
    slots = place_tensors((tensor.name, tensor.shape, types[tensor.name]) for tensor in plan.tensors)
    file_type = {"general.file_type": _FILE_TYPE_IDS[type_name], "general.quantization_version": QUANTIZATION_VERSION}
    header = pack_header({**plan.metadata, **file_type}, slots)
    size = len(header) + (aligned(slots[-1].offset + slots[-1].size_bytes) if slots else 0)
    fallbacks = {tensor.name: types[tensor.name] for tensor in plan.tensors if _fell_back(tensor, types, type_name)}
    require_space(path.parent, size, path.name)
    with _write_errors(path, size):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        with _write_errors(path, size):
            os.truncate(descriptor, size)
        file = _File(path, descriptor, {slot.name: slot for slot in slots}, len(header), size, fallbacks)
        file.write(header, 0)
        yield file
    finally:
        os.close(descriptor)


def _fell_back(tensor: TensorPlan, types: dict[str, str], file_type: str) -> bool:
    return types[tensor.name] == "F16" and file_type != "F16" and tensor.keep != "F16"


@contextmanager
def _write_errors(path: Path, size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ConversionError(
                f"the disk is full: {path.name} needs {size / 1e9:.1f} GB in {path.parent}; make room, or choose "
                f"another place with --out"
            ) from error
        raise ConversionError(f"cannot write {path}: {error.strerror}") from error


def _write_tensors(
    tensors: Sequence[TensorPlan], files: Sequence[_File], clamp: bool, advance: Callable[[int], None]
) -> None:
    worker = _Worker(files, clamp)
    pool = ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1), thread_name_prefix="gguf-writer")
    try:
        tasks = [pool.submit(worker.write, tensor, rows) for tensor in tensors for rows in _tasks(tensor)]
        for task in tasks:
            advance(task.result())
    finally:
        pool.shutdown(cancel_futures=True)


def _tasks(tensor: TensorPlan) -> Iterator[slice]:
    """The rows of a tensor in parts for one task each. One that is arranged is made as a whole, so by one task."""
    if tensor.arrange or tensor.constant:
        return iter([slice(0, tensor.num_rows)])
    row_bytes = tensor.sources[0].num_bytes // max(tensor.num_rows, 1)
    return row_chunks(tensor.num_rows, row_bytes, _TASK_BYTES)


class _Worker:
    """Writes rows of tensors into all files; used by several threads."""

    def __init__(self, files: Sequence[_File], clamp: bool) -> None:
        self._files = files
        self._clamp = clamp
        self._large = Lock()
        self._counts = Lock()

    def write(self, tensor: TensorPlan, rows: slice) -> int:
        """Write the rows, and give the bytes of the checkpoint that this took."""
        if not (tensor.arrange or tensor.constant):
            return self._write_rows(tensor, rows)
        if sum(source.num_bytes for source in tensor.sources) <= _TASK_BYTES:
            return self._write_arranged(tensor)
        with self._large:  # two large arranged tensors at a time would be too much memory
            return self._write_arranged(tensor)

    def _write_rows(self, tensor: TensorPlan, rows: slice) -> int:
        elements, dtype = tensor.elements()
        self._write_elements(tensor, elements, dtype, rows)
        row_bytes = elements.strides[0]
        tensor.sources[0].release(rows.start * row_bytes, rows.stop * row_bytes)
        return (rows.stop - rows.start) * row_bytes

    def _write_arranged(self, tensor: TensorPlan) -> int:
        elements, dtype = tensor.elements()
        tensor.release()
        self._write_elements(tensor, elements, dtype, slice(0, tensor.num_rows))
        tensor.release()  # again, because what was arranged may still be a view of the mapped file
        return sum(source.num_bytes for source in tensor.sources)

    def _write_elements(self, tensor: TensorPlan, elements: np.ndarray, dtype: str, rows: slice) -> None:
        for chunk in row_chunks(rows.stop - rows.start, tensor.row_elements):
            start = rows.start + chunk.start
            bits = np.ascontiguousarray(elements[start : rows.start + chunk.stop])
            _require_finite(bits, dtype, tensor)
            values = None
            for file in self._files:
                slot = file.slots[tensor.name]
                if tensor.compute is None and is_already(dtype, slot.type):
                    data = bits
                else:
                    values = _values(bits, dtype, tensor) if values is None else values
                    data = self._encoded(values, slot.type, tensor, file)
                offset = start * ggml.row_bytes(slot.type, tensor.row_elements)
                file.write(data, file.data_start + slot.offset + offset)

    def _encoded(self, values: np.ndarray, type_name: str, tensor: TensorPlan, file: _File) -> np.ndarray:
        if type_name == "F16" and abs(worst := largest(values)) > MAX_F16:
            if not self._clamp:
                raise ConversionError(
                    f"the tensor {tensor.name} has the value {worst:g}, beyond float16's {MAX_F16:g}: convert to BF16, "
                    f"or allow such values to be cut off with --clamp"
                )
            with self._counts:
                count = int(np.count_nonzero(np.abs(values) > MAX_F16))
                file.clamped[tensor.name] = file.clamped.get(tensor.name, 0) + count
            values = np.clip(values, -MAX_F16, MAX_F16)
        return encode(values, type_name)


def _values(bits: np.ndarray, dtype: str, tensor: TensorPlan) -> np.ndarray:
    """The tensor's values in float32."""
    values = tensor.values(bits, dtype)
    if tensor.compute or dtype == "F64":
        _require_finite(values, "F32", tensor)
    return values


def _require_finite(bits: np.ndarray, dtype: str, tensor: TensorPlan) -> None:
    if not all_finite(bits, dtype):
        names = ", ".join(source.name for source in tensor.sources) or "made here"
        raise ConversionError(
            f"the tensor {tensor.name} ({names}) has an infinity or NaN: its checkpoint is damaged or its training "
            f"diverged; take an earlier checkpoint"
        )
