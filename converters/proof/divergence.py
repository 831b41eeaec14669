"""Run a reference and several candidates side by side over the same text and compare what they predict.

The reference is computed once for all candidates of a group; logits live for one step of some dozen tokens and are
never written anywhere.
"""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from ...runtime.engines.base import Tokenizer
from ...runtime.engines.logits import LogitsModel, open_logits
from ...runtime.errors import ProofError
from ...runtime.profile import load_profile
from ..progress import Advance, Progress, Silent
from .figures import Divergence, MeasuredText, divergence_of
from .softmax import Comparison, Reference
from .texts import TextSource
from .vocabulary import tokenizer_of

Item = TypeVar("Item")

CONTEXT_TOKENS = 512
NUM_TOKENS = 8192
MEMORY_BYTES = 200_000_000
"""What logits and their copies may take, besides the models and their caches."""
MOST_PADDING = 1024
"""Rows that a matrix may have beyond the tokens: some are filled up to a multiple of a power of two."""
_MIN_CHUNK, _MIN_STEP, _MAX_STEP = 64, 32, 128


class _Run(NamedTuple):
    """How models are run: the longest sequence, tokens at once, threads (None: what is fastest just now), and how many
    tokens there are."""

    context_tokens: int
    step: int
    threads: int | None
    vocabulary: int

    def open(self, model: "_Runnable") -> LogitsModel:
        return open_logits(
            model.path,
            context_tokens=self.context_tokens,
            step_tokens=self.step,
            threads=self.threads,
            engine=model.engine,
        )


class _Runnable(NamedTuple):
    path: Path
    engine: str | None


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
    engines: Sequence[str | None] | None = None,
) -> list[Divergence]:
    """How far each candidate is from the reference, in the order of ``candidates``. Any format that an engine of this
    process runs will do; ``engines`` names those of the reference and the candidates (None: the format's own).

    ``texts`` are prompts ready to be tokenized (see ``texts.chat_texts``); as many are taken as give ``num_tokens``
    tokens, or all; ``text`` says where they are from (see ``texts.text_source``). ModelError when a model cannot be
    loaded, ProofError when it does not run or has another vocabulary.
    """
    context_tokens = min(context_tokens, load_profile(reference).context_length or context_tokens)
    with tokenizer_of(reference) as tokenizer:
        chunks, num_texts = cut_chunks(tokenizer, texts, context_tokens, num_tokens)
        vocabulary = tokenizer.vocab_size
    if not chunks:
        raise ProofError("the text to measure the divergence on has less than two tokens: give a longer one")
    measured = MeasuredText(*(text or (None, None)), texts=num_texts, tokens=sum(map(len, chunks)))
    paths = [reference, *candidates]
    own, *others = [_Runnable(*pair) for pair in zip(paths, engines or [None] * len(paths), strict=True)]
    groups = _groups(others, vocabulary)
    total = measured.tokens * (len(groups) + len(candidates))
    found: list[Divergence] = []
    with (progress or Silent()).stage("Measuring divergence", total, "tokens") as advance:
        # one step length for all, because it changes the last digits of what llama.cpp computes
        step_tokens = _step_tokens(vocabulary, max(map(len, groups), default=1))
        run = _Run(context_tokens, step_tokens, threads, vocabulary)
        for group in groups:
            compared = _measure_group([own, *group], chunks, run, advance)
            for idx, other in enumerate(group):
                of_candidate = [[step[idx] for step in chunk] for chunk in compared]
                found.append(divergence_of(other.path, reference, context_tokens, of_candidate, measured))
    return found


def cut_chunks(
    tokenizer: Tokenizer, texts: Sequence[str], context_tokens: int, num_tokens: int
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


def _writes_bos(tokenizer: Tokenizer, text: str) -> bool:
    bos = tokenizer.bos_id
    return bos is not None and text.encode().startswith(tokenizer.piece(bos))


def _groups(candidates: Sequence[Item], vocabulary: int) -> list[Sequence[Item]]:
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


def _measure_group(
    runnables: Sequence[_Runnable], chunks: list[list[int]], run: _Run, advance: Advance
) -> list[list[list[Comparison]]]:
    """Per chunk and step the comparisons of ``runnables[1:]`` with ``runnables[0]``."""
    with ExitStack() as stack:
        models = [stack.enter_context(closing(run.open(runnable))) for runnable in runnables]
        for runnable, model in zip(runnables, models, strict=True):
            if not run.vocabulary <= model.vocabulary <= run.vocabulary + MOST_PADDING:
                raise ProofError(f"{runnable.path} has {model.vocabulary} tokens and its reference {run.vocabulary}")
        scratch = np.empty((run.step, run.vocabulary), np.float32)
        return [_compare_chunk(models, chunk, scratch, advance) for chunk in chunks]


def _compare_chunk(
    models: list[LogitsModel], chunk: list[int], scratch: np.ndarray, advance: Advance
) -> list[list[Comparison]]:
    """Per step the comparisons of all candidates (``models[1:]``). Rows that stand for no token are left out."""
    step, vocabulary = scratch.shape
    for model in models:
        model.forget()
    compared: list[list[Comparison]] = []
    for start in range(0, len(chunk) - 1, step):
        ids = chunk[start : min(start + step, len(chunk) - 1)]
        targets = np.array(chunk[start + 1 : start + 1 + len(ids)])
        reference = Reference(models[0].logits(ids, start)[:, :vocabulary], targets, scratch[: len(ids)])
        compared.append([reference.compare(model.logits(ids, start)[:, :vocabulary]) for model in models[1:]])
        advance(len(ids) * len(models))
    advance(len(models))
    return compared
