"""A sequence's next token, chosen from a row of logits."""

from collections.abc import Collection

import numpy as np

from ..base import Token
from .logprobs import log_softmax, top_logprobs
from .sequence import LocalSequence


def next_token(seq: LocalSequence, logits: np.ndarray, eog_ids: Collection[int]) -> Token | None:
    """The token that the sequence's sampler chooses, with the log-probabilities that were asked for; None when its
    grammar allows none. The row is written to."""
    wanted = seq.params.top_logprobs
    logprobs = log_softmax(logits) if wanted is not None else None
    token_id = seq.sampler.sample(logits)
    if token_id is None:
        return None
    if logprobs is None:
        return Token(token_id, token_id in eog_ids)
    top = top_logprobs(logprobs, wanted or 0)
    return Token(token_id, token_id in eog_ids, float(logprobs[token_id]), top)


def append(seq: LocalSequence, token: Token) -> str | None:
    """Add a token to its sequence. Returns the finish reason when it is the last."""
    seq.tokens.append(token.id)
    if token.is_eog:
        return "eog"
    return "length" if seq.num_generated >= seq.max_new else None


def advance(seq: LocalSequence, logits: np.ndarray, eog_ids: Collection[int]) -> tuple[Token | None, str | None]:
    """What a row of logits brings a sequence: its next token, which is then part of it, and why it ends, if it does."""
    if seq.num_generated >= seq.max_new:
        return None, "length"
    token = next_token(seq, logits, eog_ids)
    return (token, append(seq, token)) if token else (None, "eog")
