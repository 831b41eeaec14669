"""Quantize a 16-bit GGUF file by llama.cpp's own ``llama_model_quantize``, in a child process."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any, Self

from ...runtime.engines.local.threads import default_threads
from ...runtime.errors import ConversionError
from ...runtime.gguf_files import read_parts
from ...runtime.gguf_header import TensorInfo, read_header
from ..imatrix.file import read_imatrix
from ..progress import Advance
from .ggml import ggml_type
from .tensor_types import EMBEDDING, OUTPUT, TensorTypes, checked_tensor_types
from .types import QuantType, quant_type

_WORKER = "tapster.converters.gguf.quantize_worker"
_LOW_BIT_OUTPUTS = frozenset(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS"))
_FULL_DISK = "iostream error"


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """What became of each tensor. ``fallbacks``: whose rows did not divide, the type they were to have and have."""

    types: dict[str, str]
    fallbacks: dict[str, tuple[str, str]]
    seconds: float


class Quantizer:
    """Quantizes one file after another. A context manager; the child starts at once and imports while we go on.

    The child has a session of its own, so a Ctrl-C reaches us alone: it is killed, and its unfinished file goes.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  what the child says outlives it

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        self._end()
        self._said.close()

    def quantize(
        self,
        source: Path,
        target: Path,
        type: str,  # noqa: A002  the word that the whole converter uses
        *,
        imatrix: Path | None = None,
        tensor_types: Sequence[tuple[str, str]] = (),
        output_type: str | None = None,
        embedding_type: str | None = None,
        threads: int | None = None,
        advance: Advance = lambda _bytes: None,
    ) -> QuantizeReport:
        """Write ``target`` from ``source``, a GGUF file in 16 or 32 bits.

        ``tensor_types`` are (regular expression, ggml type) pairs. ``advance`` gets the bytes of ``source``'s
        tensors that are done. ConversionError when it cannot be done; nothing is left at ``target`` then.
        """
        kind = quant_type(type)
        tensors = _tensors(source, source.stat().st_mtime_ns)
        _check_paths(source, target, tensors)
        if imatrix:
            _check_imatrix(imatrix, source, tensors)
        wanted = checked_tensor_types(tensor_types, output_type, embedding_type, kind, tensors, imatrix is not None)
        started_s = perf_counter()
        job = {
            "source": os.fspath(source),
            "target": os.fspath(target),
            "file_type": kind.file_type,
            "imatrix": os.fspath(imatrix) if imatrix else None,
            "tensor_types": wanted.patterns,
            "output_type": wanted.output,
            "embedding_type": wanted.embedding,
            "threads": threads or default_threads(),
        }
        try:
            asked = self._run(job, tensors, advance)
            types = {tensor.name: tensor.type for tensor in read_header(target).tensors}
        except BaseException:
            self._end()
            target.unlink(missing_ok=True)
            raise
        fallbacks = {name: (asked_for, types[name]) for name, asked_for in asked.items()}
        fallbacks.update(_unsaid_fallbacks(kind, wanted, tensors, types))
        return QuantizeReport(types, fallbacks, perf_counter() - started_s)

    def _run(self, job: dict[str, Any], tensors: Sequence[TensorInfo], advance: Advance) -> dict[str, str]:
        """Give the job to the child and listen until it ends: which type each tensor that fell back was to have."""
        tell = _Steps({tensor.name: tensor.size_bytes for tensor in tensors}, advance)
        asked: dict[str, str] = {}
        for message in self._messages(job):
            if "tensor" in message:
                tell.begin(message["tensor"])
            elif "fallback" in message:
                name, asked[name], _got = message["fallback"]
            elif reason := message["done"]:
                raise ConversionError(_why(job, reason))
            else:
                tell.end()
                return asked
        raise ConversionError(f"llama.cpp ended while it made {job['target']}: {self._last_words()}")

    def _messages(self, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What the child says from when it gets the job until it ends."""
        child = self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(job) + "\n")
            child.stdin.flush()
        except OSError:
            return
        yield from map(json.loads, child.stdout)

    def _start(self) -> subprocess.Popen[str]:
        if self._child is None or self._child.poll() is not None:
            self._end()
            self._said.truncate(0)
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", _WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                encoding="utf-8",
                start_new_session=True,
            )
        return self._child

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").splitlines()
        return next((line.strip() for line in lines if "GGML_ASSERT" in line or "Error" in line), "it said nothing")


class _Steps:
    """Turns "work on this tensor begins" into the amount of work that is done."""

    def __init__(self, sizes: dict[str, int], advance: Callable[[int], None]) -> None:
        self._sizes, self._advance, self._at = sizes, advance, ""

    def begin(self, name: str) -> None:
        self.end()
        self._at = name

    def end(self) -> None:
        if self._at in self._sizes:
            self._advance(self._sizes[self._at])
        self._at = ""


@lru_cache(maxsize=1)
def _tensors(source: Path, _mtime_ns: int) -> list[TensorInfo]:
    """What a source holds, read once for all the types that are made of it."""
    return [tensor for header in read_parts(source) for tensor in header.tensors]


def _unsaid_fallbacks(
    kind: QuantType, wanted: TensorTypes, tensors: Sequence[TensorInfo], types: dict[str, str]
) -> dict[str, tuple[str, str]]:
    """llama.cpp gives the output layer, and embeddings tied to it, 8 bits without a word when rows do not divide."""
    is_tied = all(tensor.name != OUTPUT for tensor in tensors)
    name = EMBEDDING if is_tied else OUTPUT
    row = next((tensor.shape[0] for tensor in tensors if tensor.name == name), 0)
    asked = wanted.output or (wanted.embedding if is_tied else None)
    if asked or types.get(name) != "Q8_0" or not row % ggml_type(kind.base).block_size:
        return {}
    return {name: ("Q5_K" if kind.name in _LOW_BIT_OUTPUTS else "Q6_K", "Q8_0")}


def _check_paths(source: Path, target: Path, tensors: Sequence[TensorInfo]) -> None:
    if not target.parent.is_dir():
        raise ConversionError(f"cannot write {target}: there is no folder {target.parent}")
    for tensor in tensors:
        if ggml_type(tensor.type).block_size > 1:
            raise ConversionError(
                f"{source} is quantized already ({tensor.name} is {tensor.type}), and quantizing it again would lose "
                f"more: take the 16-bit file, or the checkpoint"
            )


def _check_imatrix(path: Path, source: Path, tensors: Sequence[TensorInfo]) -> None:
    """llama.cpp passes over what a matrix has for other tensors, so one of another model would do nothing."""
    entries = read_imatrix(path).entries
    known = [tensor for tensor in tensors if tensor.name in entries]
    for tensor in known:
        columns = prod(size for idx, size in enumerate(tensor.shape) if idx != 1)
        if (found := entries[tensor.name].sums.size) != columns:
            raise ConversionError(
                f"the importance matrix {path} is of another model: it has {found} columns for {tensor.name}, and "
                f"{source} has {columns}"
            )
    if not known:
        raise ConversionError(f"the importance matrix {path} is of another model: none of its tensors is in {source}")


def _why(job: dict[str, Any], reason: str) -> str:
    target = Path(job["target"])
    if _FULL_DISK in reason:
        free = shutil.disk_usage(target.parent).free
        return f"cannot write {target}: {free / 1e9:.1f} GB are free there; make room, or choose another place"
    return f"llama.cpp cannot quantize {job['source']}: {reason}"
