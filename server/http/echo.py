"""The text of a prompt, to stand at the head of its own continuation."""

from collections.abc import Sequence

from ...runtime.engines.base import Tokenizer
from ...runtime.text.types import TokenText
from .inputs import Input


def prompt_text(prompt: Input, tokenizer: Tokenizer) -> str:
    """The prompt as text; of token ids, with the names of control tokens."""
    if isinstance(prompt, str):
        return prompt
    return b"".join(tokenizer.piece(token_id) for token_id in prompt).decode("utf-8", "replace")


def hidden_chars(text: str, tokens: Sequence[TokenText]) -> int:
    """How many characters the tokens have before the text: an added bos, the blank some tokenizers add."""
    written = b"".join(token.bytes for token in tokens).decode("utf-8", "replace")
    return max(0, len(written) - len(text))
