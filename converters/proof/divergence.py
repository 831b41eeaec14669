"""Run a reference and several candidates side by side over the same text and compare what they predict.

The reference is computed once for all candidates of a group; logits live for one step of some dozen tokens and are
never written anywhere.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...runtime.engines.llamacpp.context import Batch, LlamaContext
from ...runtime.engines.llamacpp.library import last_error, llama, load_model
from ...runtime.engines.local.threads import FixedThreads, ThreadTuner, default_threads
from ...runtime.engines.llamacpp.tokenizer import LlamaTokenizer
from ...runtime.errors import ProofError
from ...runtime.profile import load_profile
from ..progress import Advance, Progress, Silent
from .figures import Divergence, MeasuredText, divergence_of
from .softmax import Comparison, Reference
from .texts import TextSource
from .vocabulary import open_vocabulary

CONTEXT_TOKENS = 512
NUM_TOKENS = 8192
MEMORY_BYTES = 200_000_000
"""What logits and their copies may take, besides the models and their caches."""
_MIN_CHUNK, _MIN_STEP, _MAX_STEP = 64, 32, 128


def measure_divergence(
    reference: Path,
    candidates: Sequence[Path],
    texts: Sequence[str],
    *,
    context_tokens: int = CONTEXT_TOKENS,
    num_tokens: int = NUM_TOKENS,
    threads: int | None = None,
    progress: Progress | None = None,
    text: TextSource | None = None,
) -> list[Divergence]:
    """How far each candidate is from the reference, in the order of ``candidates``.

    ``texts`` are prompts ready to be tokenized (see ``texts.chat_texts``); as many are taken as give ``num_tokens``
    tokens, or all; ``text`` says where they are from (see ``texts.text_source``). ModelError when a model cannot be
    loaded, ProofError when it does not run or has another vocabulary.
    """
    context_tokens = min(context_tokens, load_profile(reference).context_length or context_tokens)
    with open_vocabulary(reference) as tokenizer:
        chunks, num_texts = cut_chunks(tokenizer, texts, context_tokens, num_tokens)
        vocabulary = tokenizer.vocab_size
    if not chunks:
        raise ProofError("the text to measure the divergence on has less than two tokens: give a longer one")
    measured = MeasuredText(*(text or (None, None)), texts=num_texts, tokens=sum(map(len, chunks)))
    groups = _groups(candidates, vocabulary)
    total = measured.tokens * (len(groups) + len(candidates))
    found: list[Divergence] = []
    with (progress or Silent()).stage("Measuring divergence", total, "tokens") as advance:
        # one step length for all, because it changes the last digits of what llama.cpp computes
        run = _Run(context_tokens, _step_tokens(vocabulary, max(map(len, groups), default=1)), threads)
        for group in groups:
            compared = _measure_group([reference, *group], chunks, run, advance)
            for idx, path in enumerate(group):
                of_candidate = [[step[idx] for step in chunk] for chunk in compared]
                found.append(divergence_of(path, reference, context_tokens, of_candidate, measured))
    return found


def cut_chunks(
    tokenizer: LlamaTokenizer, texts: Sequence[str], context_tokens: int, num_tokens: int
) -> tuple[list[list[int]], int]:
    """Token ids to run from an empty cache, at least ``num_tokens`` of them if the texts suffice. Each chunk begins
    where a text does, and further texts fill it up; what of the last one does not fit is left out. With them comes how
    many texts that took."""
    chunks: list[list[int]] = []
    chunk: list[int] = []
    context_tokens = min(context_tokens, num_tokens)
    num_texts = begun = 0
    for text in texts:
        ids = tokenizer.encode(text, add_special=not chunk and not _writes_bos(tokenizer, text))
        chunk += ids[: context_tokens - len(chunk)]
        begun += 1
        if len(chunk) == context_tokens:
            chunks.append(chunk)
            num_texts, begun, chunk = num_texts + begun, 0, []
        if sum(map(len, chunks)) >= num_tokens:
            break
    if len(chunk) >= (_MIN_CHUNK if chunks else 2):
        chunks.append(chunk)
        num_texts += begun
    return chunks, num_texts


def _writes_bos(tokenizer: LlamaTokenizer, text: str) -> bool:
    bos = tokenizer.bos_id
    return bos is not None and text.encode().startswith(tokenizer.piece(bos))


def _groups(candidates: Sequence[Path], vocabulary: int) -> list[Sequence[Path]]:
    """As many candidates at once as the memory allows with steps that are not too short, in even groups."""
    most = max(1, MEMORY_BYTES // (_token_bytes(vocabulary, 1) * _MIN_STEP) - 1)
    num_groups = -(-len(candidates) // most)
    size = -(-len(candidates) // max(num_groups, 1))
    return [candidates[start : start + size] for start in range(0, len(candidates), max(size, 1))]


def _step_tokens(vocabulary: int, num_candidates: int) -> int:
    fits = MEMORY_BYTES // _token_bytes(vocabulary, num_candidates + 1)
    return max(_MIN_STEP, min(_MAX_STEP, fits))


def _token_bytes(vocabulary: int, num_models: int) -> int:
    """Memory for one token of a step: llama.cpp holds its logits twice, and the probabilities are kept once."""
    return 4 * vocabulary * (2 * num_models + 1)


class _Run(NamedTuple):
    """How models are run: the size of the cache, tokens at once, threads (None: what is fastest just now)."""

    cells: int
    step: int
    threads: int | None


def _measure_group(
    paths: Sequence[Path], chunks: list[list[int]], run: _Run, advance: Advance
) -> list[list[list[Comparison]]]:
    """Per chunk and step the comparisons of ``paths[1:]`` with ``paths[0]``."""
    with ExitStack() as stack:
        models = [stack.enter_context(_Model(path, run)) for path in paths]
        vocabulary = models[0].vocabulary
        for model in models:
            if model.vocabulary != vocabulary:
                raise ProofError(f"{model.path} has {model.vocabulary} tokens and its reference {vocabulary}")
        scratch = np.empty((run.step, vocabulary), np.float32)
        return [_compare_chunk(models, chunk, scratch, advance) for chunk in chunks]


def _compare_chunk(
    models: list["_Model"], chunk: list[int], scratch: np.ndarray, advance: Advance
) -> list[list[Comparison]]:
    """Per step the comparisons of all candidates (``models[1:]``)."""
    step = len(scratch)
    for model in models:
        model.forget()
    compared: list[list[Comparison]] = []
    for start in range(0, len(chunk) - 1, step):
        ids = chunk[start : min(start + step, len(chunk) - 1)]
        targets = np.array(chunk[start + 1 : start + 1 + len(ids)])
        reference = Reference(models[0].logits(ids, start), targets, scratch[: len(ids)])
        compared.append([reference.compare(model.logits(ids, start)) for model in models[1:]])
        advance(len(ids) * len(models))
    advance(len(models))
    return compared


class _Model:
    """A loaded model with a context of its own."""

    def __init__(self, path: Path, run: _Run) -> None:
        self.path = path
        self._lib = llama()
        self._handle = load_model(path, None)
        self.vocabulary: int = self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._handle))
        self._batch = Batch(run.step)
        self._threads = FixedThreads(run.threads) if run.threads else ThreadTuner(default_threads())
        self._context: LlamaContext | None = None
        try:
            self._context = LlamaContext(
                self._handle, cells=run.cells, max_seqs=1, batch_tokens=run.step, num_threads=self._threads.choose()
            )
        finally:
            if self._context is None:
                self.close()

    def __enter__(self) -> "_Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model."""
        if self._context:
            self._context.close()
        self._lib.llama_model_free(self._handle)

    def forget(self) -> None:
        """Empty the cache."""
        assert self._context is not None
        self._context.free(0)

    def logits(self, ids: list[int], start: int) -> np.ndarray:
        """Logits after each of the ids, which follow ``start`` others; valid until the next call."""
        assert self._context is not None
        self._batch.clear()
        self._batch.add_run(ids, start, 0, all_outputs=True, last_output=True)
        self._context.set_threads(self._threads.choose())
        started_s = time.perf_counter()
        code = self._context.decode(self._batch)
        self._threads.observe(0, len(ids), time.perf_counter() - started_s)
        if code:
            raise ProofError(f"llama.cpp cannot run {self.path} (code {code}): {last_error()}")
        return self._context.logits(len(ids))
