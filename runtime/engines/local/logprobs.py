"""Log-probabilities from rows of logits, as every engine reports them."""

import numpy as np

from ..base import Logprob, Token
from .sequence import LocalSequence


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural log-probabilities of rows of logits, float32 of shape (..., vocab)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)).astype(np.float32)


def top_logprobs(logprobs: np.ndarray, count: int) -> tuple[Logprob, ...]:
    """The ``count`` most likely tokens of a row of log-probabilities, most likely first; ties by id."""
    if not count:
        return ()
    best = np.argpartition(logprobs, -count)[-count:] if count < len(logprobs) else np.arange(len(logprobs))
    ranked = sorted(best.tolist(), key=lambda token: (-logprobs[token], token))
    return tuple(Logprob(token, float(logprobs[token])) for token in ranked)


def score_prompt(seq: LocalSequence, start: int, rows: np.ndarray) -> None:
    """Add the log-probabilities of the prompt's tokens: row i is the distribution of the token after start + i."""
    wanted = seq.params.prompt_logprobs or 0
    if start == 0:
        seq.prompt_logprobs = [Token(seq.prompt[0])]
    for offset, logprobs in enumerate(map(log_softmax, rows)):
        position = start + offset + 1
        if position < len(seq.prompt):
            token = seq.prompt[position]
            seq.prompt_logprobs.append(Token(token, logprob=float(logprobs[token]), top=top_logprobs(logprobs, wanted)))
