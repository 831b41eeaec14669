"""The bodies of /tokenize, /detokenize and /apply-template's response."""

from pydantic import Field

from .base import Name, RequestModel, ResponseModel, TokenId


class TokenizeRequest(RequestModel):
    """Text to split into tokens, in ``content`` or in ``prompt``."""

    model: Name | None = None
    content: str | None = None
    prompt: str | None = Field(None, description="Another name for content.")
    add_special: bool | None = Field(None, description="Add bos/eos as the model declares; off by default.")
    parse_special: bool | None = Field(None, description="Read control tokens written out; on by default.")
    with_pieces: bool | None = Field(None, description="Also send the text of every token.")


class TokenPiece(ResponseModel):
    """A token with its text, or with its bytes where they are no UTF-8 by themselves."""

    id: int
    piece: str | list[int]


class TokenizeResponse(ResponseModel):
    """Token ids, or with ``with_pieces`` the ids with their texts."""

    tokens: list[int] | list[TokenPiece]


class DetokenizeRequest(RequestModel):
    """Tokens to join into text."""

    model: Name | None = None
    tokens: list[TokenId]


class DetokenizeResponse(ResponseModel):
    """The text; bytes that are no UTF-8 come out as U+FFFD."""

    content: str


class ApplyTemplateResponse(ResponseModel):
    """The prompt that the model would get."""

    prompt: str
