"""The body of POST /v1/embeddings, and its response."""

from typing import Annotated, Literal

from pydantic import Field

from .base import Name, ResponseModel
from .completion_request import Inputs
from .harmless import Harmless


class CreateEmbeddingRequest(Harmless):
    """Texts to turn into vectors."""

    model: Name | None = None
    input: Inputs
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64 is of little-endian 32-bit floats."
    )
    dimensions: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Only the model's own number: vectors are not cut."
    )


class Embedding(ResponseModel):
    """The vector of one input, of unit length."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(ResponseModel):
    """Token counts."""

    prompt_tokens: int
    total_tokens: int


class CreateEmbeddingResponse(ResponseModel):
    """Vectors, in the order of the inputs."""

    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: EmbeddingUsage
