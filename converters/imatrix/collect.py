"""Collect an importance matrix: run texts through a model and sum what meets each weight.

Whole chunks are summed, and saved now and then beside the target with the number of them, so a run that was
interrupted goes on where it was. The computation runs on a thread: llama.cpp calls back into Python in the middle
of it, where a Ctrl-C would be lost.
"""

import hashlib
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from ...runtime.engines.llamacpp.library import llama, load_model
from ...runtime.engines.llamacpp.tokenizer import LlamaTokenizer
from ...runtime.engines.local.threads import FixedThreads, ThreadTuner, default_threads
from ...runtime.errors import ConversionError, ModelError
from ...runtime.gguf_files import existing_parts
from .file import Entry, Imatrix, read_imatrix, write_imatrix
from .observer import Observer, Sums
from .watched_context import WatchedContext

CHUNK_TOKENS = 512
SAVE_INTERVAL_S = 20.0
_KEY = "tapster.imatrix.key"
_HEAD_BYTES, _NUM_SAMPLES, _SAMPLE_BYTES = 1 << 20, 256, 4096


@dataclass(frozen=True, slots=True)
class ImatrixReport:
    """What was collected: chunks of text in all, of which some may come from an earlier run; weights covered."""

    chunks: int
    resumed_chunks: int
    weights: int


def collect_imatrix(
    model: Path,
    texts: Iterable[str],
    out: Path,
    *,
    dataset: str = "calibration",
    chunk_tokens: int = CHUNK_TOKENS,
    resume: bool = True,
    replace: bool = True,
    threads: int | None = None,
    save_interval_s: float = SAVE_INTERVAL_S,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> ImatrixReport:
    """Write the importance matrix of the GGUF ``model`` over ``texts``, which already have the form of chats.

    ``dataset`` names the texts in the file; ``progress`` gets chunks done and chunks in all. With ``resume`` an
    interrupted run over the same model and texts goes on, and a finished one is not done again; another file at ``out``
    stays without ``replace``. ConversionError when
    the texts are too short or the model cannot be watched. What Ctrl-C leaves is ``out`` with ``.partial`` added.
    """
    try:
        handle = load_model(model, None)
    except ModelError as error:
        raise ConversionError(str(error)) from error
    try:
        chunk_tokens = min(chunk_tokens, llama().llama_model_n_ctx_train(handle) or chunk_tokens)
        chunks = _chunks(LlamaTokenizer(handle), texts, chunk_tokens)
        key = _key(model, chunks)
        state = _State.load(out, key, len(chunks)) if resume else _State(out, key)
        if out.exists() and not replace and state.chunk_count < len(chunks):
            raise ConversionError(
                f"{out} is there already and is of another model or text: give --force to replace it, or use it with "
                f"--imatrix"
            )
        start = state.chunk_count
        progress(start, len(chunks))
        if start < len(chunks):
            _run(handle, chunks, state, dataset, threads, save_interval_s, progress)
    finally:
        llama().llama_model_free(handle)
    return ImatrixReport(len(chunks), start, len(state.sums))


class _State:
    """The sums so far and the files they are in: finished ones at ``out``, others beside it."""

    def __init__(self, out: Path, key: str) -> None:
        self.out, self.key = out, key
        self.partial = out.with_name(out.name + ".partial")
        self.sums: Sums = {}
        self.chunk_count = 0

    @classmethod
    def load(cls, out: Path, key: str, num_chunks: int) -> "_State":
        """What an earlier run over the same model and texts left; an empty one when there is none."""
        state = cls(out, key)
        for path in (state.partial, out):
            found = _read(path, key)
            if found and (path == state.partial or found.chunk_count == num_chunks):
                entries = found.entries.items()
                state.sums = {name: (part.sums.astype(np.float64), part.counts) for name, part in entries}
                state.chunk_count = found.chunk_count
        return state

    def add(self, sums: Sums) -> None:
        """Another chunk."""
        for name, (values, counts) in sums.items():
            old_values, old_counts = self.sums.get(name, (0.0, 0))
            self.sums[name] = (old_values + values, old_counts + counts)
        self.chunk_count += 1

    def save(self, path: Path, dataset: str, chunk_tokens: int) -> None:
        entries = {name: Entry(values, counts) for name, (values, counts) in self.sums.items()}
        write_imatrix(path, Imatrix(entries, (dataset,), self.chunk_count, chunk_tokens, {_KEY: self.key}))


def _run(
    handle: Any,
    chunks: Sequence[np.ndarray],
    state: _State,
    dataset: str,
    threads: int | None,
    save_interval_s: float,
    progress: Callable[[int, int], None],
) -> None:
    chunk_tokens = len(chunks[0])
    saved_s = monotonic()
    try:
        with closing(_watched(handle, chunks[state.chunk_count :], threads)) as watched:
            for sums in watched:
                state.add(sums)
                progress(state.chunk_count, len(chunks))
                if monotonic() - saved_s > save_interval_s:
                    state.save(state.partial, dataset, chunk_tokens)
                    saved_s = monotonic()
    except BaseException:
        if state.chunk_count:
            state.save(state.partial, dataset, chunk_tokens)
        raise
    if not state.sums:
        raise ConversionError("the model multiplies nothing that an importance matrix could be made for")
    state.save(state.out, dataset, chunk_tokens)
    state.partial.unlink(missing_ok=True)


def _watched(handle: Any, chunks: Sequence[np.ndarray], threads: int | None) -> Generator[Sums]:
    """The sums of each chunk in turn, computed on a thread that gives up in the middle of one when we are stopped."""
    observer = Observer()
    tuner = FixedThreads(threads) if threads else ThreadTuner(default_threads())
    context = WatchedContext(handle, observer, len(chunks[0]), tuner)
    thread = ThreadPoolExecutor(1, thread_name_prefix="imatrix")
    try:
        for chunk in chunks:
            yield thread.submit(context.step, chunk).result()
    finally:
        was_interrupted = _end(thread, observer)
        context.close()
        if was_interrupted:
            raise KeyboardInterrupt


def _end(thread: ThreadPoolExecutor, observer: Observer) -> bool:
    """Wait until the thread is out of C code, whose memory is freed next, however often Ctrl-C is pressed meanwhile.

    Whether it was.
    """
    was_interrupted = False
    while True:
        try:
            observer.stopped = True
            thread.shutdown()
            return was_interrupted
        except KeyboardInterrupt:
            was_interrupted = True


def _chunks(tokenizer: LlamaTokenizer, texts: Iterable[str], chunk_tokens: int) -> list[np.ndarray]:
    """Token ids of all texts on end, cut to one length; each chunk begins the way the model's texts do."""
    ids = [token for text in texts for token in tokenizer.encode(text, parse_special=True)]
    start = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    step = chunk_tokens - len(start)
    if len(ids) < step:
        raise ConversionError(
            f"the calibration text has {len(ids)} tokens and one chunk takes {step}: give a longer one"
        )
    return [np.array(start + ids[at : at + step], np.int32) for at in range(0, len(ids) - step + 1, step)]


def _key(model: Path, chunks: Sequence[np.ndarray]) -> str:
    """What tells one run from another: the tokens, and a model by its size, its head and samples all over it."""
    digest = hashlib.sha256(np.concatenate(chunks).tobytes())
    digest.update(len(chunks[0]).to_bytes(8, "little"))
    for part in existing_parts(model):
        size = part.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        with part.open("rb") as file:
            digest.update(file.read(_HEAD_BYTES))
            for idx in range(_NUM_SAMPLES):
                file.seek(size * idx // _NUM_SAMPLES)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _read(path: Path, key: str) -> Imatrix | None:
    """The matrix at ``path`` if it is of this run."""
    if not path.is_file():
        return None
    try:
        found = read_imatrix(path)
    except ConversionError:
        return None
    return found if found.facts.get(_KEY) == key else None
