"""POST /v1/embeddings."""

import asyncio
import json
from array import array
from base64 import b64encode
from sys import byteorder
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from ....runtime.errors import ContextOverflow
from ..body import JsonRoute
from ..disconnect import on_disconnect
from ..errors import bad_request
from ..inputs import checked_inputs, token_ids
from ..offload import prepared
from ..schema.embedding import CreateEmbeddingRequest, CreateEmbeddingResponse
from ..served import served_model

if TYPE_CHECKING:
    from ....runtime.runtime import Runtime

router = APIRouter(route_class=JsonRoute)


@router.post("/v1/embeddings", response_model=CreateEmbeddingResponse, tags=["OpenAI"])
async def create_embedding(body: CreateEmbeddingRequest, request: Request) -> Response:
    """Turn texts into vectors of unit length."""
    served = served_model(request, body.model)
    runtime = served.runtime
    if not runtime.engine.capabilities.embeddings:
        raise bad_request(f"the {runtime.engine.capabilities.name} engine makes no embeddings of this model", "model")
    inputs = checked_inputs(body.input, runtime.engine.tokenizer.vocab_size, "input")
    ids = await prepared(request, lambda: token_ids(inputs, runtime.engine.tokenizer))
    _check_lengths(ids, runtime)
    vectors = await _embed(ids, runtime, request.receive)
    if body.dimensions not in (None, len(vectors[0])):
        raise bad_request(f"dimensions must be {len(vectors[0])}, what this model makes", "dimensions")
    data = [
        {
            "object": "embedding",
            "index": idx,
            "embedding": _base64(vector) if body.encoding_format == "base64" else vector,
        }
        for idx, vector in enumerate(vectors)
    ]
    tokens = sum(len(one) for one in ids)
    reply: dict[str, Any] = {
        "object": "list",
        "model": served.model_id,
        "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Response(json.dumps(reply).encode(), media_type="application/json")


async def _embed(inputs: list[list[int]], runtime: "Runtime", receive: Receive) -> list[list[float]]:
    work = asyncio.gather(*(runtime.embed(ids) for ids in inputs))
    try:
        async with on_disconnect(receive, work.cancel):
            await asyncio.wait([work])
    finally:
        work.cancel()
    if work.cancelled():
        raise ClientDisconnect
    return work.result()


def _check_lengths(inputs: list[list[int]], runtime: "Runtime") -> None:
    if not all(inputs):
        raise bad_request("input has an empty text, which has no embedding", "input")
    longest, context_length = max(map(len, inputs)), runtime.engine.capabilities.context_length
    if longest > context_length:
        raise ContextOverflow(longest, context_length, "input")


def _base64(vector: list[float]) -> str:
    numbers = array("f", vector)
    if byteorder == "big":
        numbers.byteswap()
    return b64encode(numbers.tobytes()).decode()
