"""The vocabulary of a checkpoint, by whichever of its files describe it."""

from typing import Any

from ...runtime.errors import ConversionError
from ...runtime.tokenizer.vocabulary import flat_steps
from ..checkpoint.checkpoint import Checkpoint
from .added import read_added_tokens
from .bpe import read_bpe
from .sentencepiece import read_pieces_json, read_pieces_model
from .vocabulary import Vocabulary


def read_vocabulary(checkpoint: Checkpoint, num_rows: int) -> Vocabulary:
    """One token for each of the embedding's ``num_rows`` rows. ConversionError when GGUF cannot hold the tokenizer."""
    added = read_added_tokens(checkpoint)
    description = checkpoint.tokenizer_json
    if description is None:
        return read_pieces_model(checkpoint, added, num_rows)
    model = description.get("model")
    kind = model.get("type", "BPE") if isinstance(model, dict) and "vocab" in model else None
    try:
        if kind == "BPE" and is_byte_level(description):
            return read_bpe(checkpoint, description, added, num_rows)
        if kind in ("BPE", "Unigram"):
            return read_pieces_json(checkpoint, description, added, num_rows)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConversionError(f"{checkpoint.path}/tokenizer.json is damaged ({reason}): save it again") from error
    raise ConversionError(
        f"{checkpoint.path}/tokenizer.json has a {kind} model; BPE and SentencePiece can be converted"
    )


def is_byte_level(description: dict[str, Any]) -> bool:
    """Whether words are written in GPT-2's alphabet for bytes before they are merged."""
    steps = [
        *flat_steps(description.get("pre_tokenizer"), "pretokenizers"),
        *flat_steps(description.get("normalizer"), "normalizers"),
    ]
    return any(step.get("type") == "ByteLevel" for step in steps)
