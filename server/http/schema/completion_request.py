"""The body of POST /v1/completions."""

from typing import Annotated, Any

from pydantic import Field, Tag

from .base import TokenId
from .generation import Count, GenerationRequest, by_shape

MAX_INPUTS = 128
"""How many texts one request may bring."""


def _shape(value: Any) -> str | None:
    if isinstance(value, str):
        return "(text)"
    if not isinstance(value, list) or not value:
        return None
    first = value[0]
    return "(texts)" if isinstance(first, str) else "(id lists)" if isinstance(first, list) else "(ids)"


Ids = Annotated[list[TokenId], Field(min_length=1)]
Inputs = Annotated[
    Annotated[str, Tag("(text)")]
    | Annotated[list[str], Field(max_length=MAX_INPUTS), Tag("(texts)")]
    | Annotated[Ids, Tag("(ids)")]
    | Annotated[list[Ids], Field(max_length=MAX_INPUTS), Tag("(id lists)")],
    by_shape(_shape, "a text, a list of token ids, or a list of texts or of token id lists, not empty"),
]


class CreateCompletionRequest(GenerationRequest):
    """Texts to continue."""

    prompt: Inputs
    max_tokens: Count | None = Field(None, description="The most tokens to make; 16 by default.")
    echo: bool | None = Field(None, description="Begin the answer with the prompt.")
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(
        None, description="Report log-probabilities: of each token and of this many of the most likely."
    )
    best_of: int | None = Field(None, description="Only n itself: answers are not ranked.")
    suffix: None = Field(None, description="Not supported: text is only made after the prompt.")
