"""POST /tokenize and POST /detokenize."""

from typing import Any

from fastapi import APIRouter, Request

from ..body import JsonRoute
from ..errors import bad_request
from ..inputs import check_ids
from ..offload import prepared
from ..schema.text import DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse
from ..served import served_model

router = APIRouter(route_class=JsonRoute, tags=["text"])


@router.post("/tokenize", response_model=TokenizeResponse)
async def tokenize(body: TokenizeRequest, request: Request) -> dict[str, Any]:
    """The tokens of a text."""
    tokenizer = served_model(request, body.model).runtime.engine.tokenizer
    text = _text(body)
    parse_special = body.parse_special is not False

    def encode() -> list[Any]:
        ids = tokenizer.encode(text, add_special=bool(body.add_special), parse_special=parse_special)
        if not body.with_pieces:
            return ids
        return [{"id": token_id, "piece": _written(tokenizer.piece(token_id))} for token_id in ids]

    return {"tokens": await prepared(request, encode)}


@router.post("/detokenize", response_model=DetokenizeResponse)
async def detokenize(body: DetokenizeRequest, request: Request) -> dict[str, Any]:
    """The text of tokens, control tokens by their names."""
    tokenizer = served_model(request, body.model).runtime.engine.tokenizer
    check_ids(body.tokens, tokenizer.vocab_size, "tokens")

    def decode() -> str:
        return b"".join(map(tokenizer.piece, body.tokens)).decode("utf-8", "replace")

    return {"content": await prepared(request, decode)}


def _text(body: TokenizeRequest) -> str:
    if body.content is None and body.prompt is None:
        raise bad_request("content is missing: the text to tokenize", "content", "missing_parameter")
    if body.content is not None and body.prompt is not None:
        raise bad_request("content and prompt are the same thing: send one", "prompt")
    return body.content if body.content is not None else body.prompt or ""


def _written(piece: bytes) -> str | list[int]:
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return list(piece)
