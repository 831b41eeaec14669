"""The child process that quantizes, because C code that fails ends its process. Started by ``quantize.py``.

A line of JSON on the input is one job; lines of JSON on the output tell what happens to it:

    {"tensor": NAME}                         work on this tensor begins
    {"fallback": [NAME, WANTED, GOT]}        its rows do not divide into the blocks of the type it should have
    {"done": null} or {"done": REASON}       the end of the job, with what went wrong

When the input ends the parent is gone: the process ends at once and takes the unfinished file with it.
"""

import ctypes
import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ...runtime.errors import TapsterError
from ..imatrix.file import Imatrix, read_imatrix
from .ggml import TYPE_IDS
from .quantize_log import QuantizeLog

Job = dict[str, Any]

_INT, _STRING = 0, 3
_MAX_OVERRIDE_BYTES = 127


def main() -> None:
    """Work on jobs until the input ends."""
    output = _own_output()

    def say(**message: Any) -> None:
        output.write(json.dumps(message) + "\n")
        output.flush()

    jobs = _Jobs()
    from llama_cpp import llama_cpp as lib

    log = QuantizeLog(say)
    callback = lib.llama_log_callback(lambda _level, text, _data: log.feed(text.decode("utf-8", "replace")))
    lib.llama_log_set(callback, ctypes.c_void_p(0))
    lib.llama_backend_init()
    for job in jobs:
        log.clear()
        say(done=_quantize(lib, job, log))


def _own_output() -> IO[str]:
    """The real standard output; what C code prints there goes to standard error instead."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return output


class _Jobs:
    """Jobs from the standard input, read on a thread so that its end is noticed in the middle of one."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Job] = queue.Queue()
        self._target: Path | None = None
        threading.Thread(target=self._read, daemon=True).start()

    def __iter__(self) -> Iterator[Job]:
        while True:
            job = self._waiting.get()
            self._target = Path(job["target"])
            yield job
            self._target = None

    def _read(self) -> None:
        for line in sys.stdin:
            self._waiting.put(json.loads(line))
        if self._target is not None:
            self._target.unlink(missing_ok=True)
        os._exit(0)


def _quantize(lib: Any, job: Job, log: QuantizeLog) -> str | None:
    """None when the target is written, else the reason why it is not."""
    try:
        imatrix = read_imatrix(Path(job["imatrix"])) if job["imatrix"] else None
    except TapsterError as error:
        return str(error)
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread = job["file_type"], job["threads"]
    if job["output_type"]:
        params.output_tensor_type = TYPE_IDS[job["output_type"]]
    if job["embedding_type"]:
        params.token_embedding_type = TYPE_IDS[job["embedding_type"]]
    kept = [_set_overrides(lib, params, job["tensor_types"])]
    if imatrix:
        kept.append(_set_imatrix(lib, params, imatrix, Path(job["imatrix"]).name))
    status = lib.llama_model_quantize(os.fsencode(job["source"]), os.fsencode(job["target"]), ctypes.byref(params))
    return log.reason() if status else None


def _set_overrides(lib: Any, params: Any, tensor_types: list[tuple[str, str]]) -> Any:
    """Patterns with their types, ended by an empty one. Returns what has to live as long as ``params``."""
    array = (lib.llama_model_tensor_override * (len(tensor_types) + 1))()
    for entry, (pattern, name) in zip(array, tensor_types, strict=False):
        entry.pattern, entry.type = pattern.encode(), TYPE_IDS[name]
    params.tt_overrides = array
    return array


def _set_imatrix(lib: Any, params: Any, imatrix: Imatrix, file_name: str) -> Any:
    """Mean squares per tensor, ended by an empty name, and the metadata that llama-quantize writes about them."""
    means = {name.encode(): entry.mean_squares() for name, entry in imatrix.entries.items()}
    array = (lib.llama_model_imatrix_data * (len(means) + 1))()
    floats = ctypes.POINTER(ctypes.c_float)
    for item, (name, values) in zip(array, means.items(), strict=False):
        item.name, item.data, item.size = name, values.ctypes.data_as(floats), values.size
    facts: dict[str, int | str] = {"file": file_name, "entries_count": len(means), "chunks_count": imatrix.chunk_count}
    if imatrix.datasets:
        facts["dataset"] = imatrix.datasets[0]
    overrides = (lib.llama_model_kv_override * (len(facts) + 1))()
    for override, (key, value) in zip(overrides, facts.items(), strict=False):
        override.key = f"quantize.imatrix.{key}".encode()
        _set_value(override, value)
    params.imatrix, params.kv_overrides = array, overrides
    return means, array, overrides


def _set_value(override: Any, value: int | str) -> None:
    if isinstance(value, int):
        override.tag, override.value.val_i64 = _INT, value
    else:
        cut = value.encode()[:_MAX_OVERRIDE_BYTES].decode("utf-8", "ignore")
        override.tag, override.value.val_str = _STRING, cut.encode()


if __name__ == "__main__":
    main()
