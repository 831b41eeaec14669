"""Distributions of a model behind an endpoint, over rows of tokens, from the log-probabilities of prompts.

vLLM has ``prompt_logprobs`` with token ids, as many as its ``--max-logprobs``. ``tapster serve``, like OpenAI's own
service once, has ``echo`` with ``logprobs``: at most 20, by the tokens' text, for which the student's tokenizer knows
the ids.
"""

import asyncio
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ...runtime.errors import ConfigError, TrainingError
from .capture import Captured, TokenRow
from .endpoint import Endpoint, Patience, Refused

_TOKEN_ID = "token_id:"
_LEAST = -9000.0
"""Servers write -9999 for a probability of zero."""


class EndpointSource:
    """Captures the ``size`` most likely tokens of every prediction from the server at ``url``."""

    def __init__(
        self,
        url: str,
        model: str | None,
        size: int,
        names: "TokenNames",
        *,
        concurrency: int = 16,
        patience: Patience | None = None,
    ) -> None:
        self._url, self._model, self._size, self._names = url, model, size, names
        self._concurrency, self._patience = concurrency, patience
        self._has_ids = False

    def about(self) -> dict[str, Any]:
        async def ask() -> list[dict[str, Any]]:
            async with self._endpoint() as endpoint:
                return await endpoint.models()

        models = asyncio.run(ask())
        self._model = self._model or str(models[0]["id"])
        self._has_ids = any(one.get("owned_by") == "vllm" for one in models)
        return {"served_as": self._model}

    def capture(self, rows: Sequence[TokenRow]) -> Iterator[list[Captured]]:
        """Each as soon as it is there, once ``about`` has been asked; also what came before an error or Ctrl-C."""
        waiting, running = iter(rows), set[asyncio.Task[Captured]]()
        with asyncio.Runner() as runner:
            endpoint = runner.run(self._endpoint().__aenter__())
            try:
                while True:
                    more = islice(waiting, self._concurrency - len(running))
                    running |= {runner.get_loop().create_task(self._row(endpoint, row)) for row in more}
                    if not running:
                        return
                    done, running = runner.run(asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))
                    yield _whole(done)
                    for task in done:
                        task.result()  # or the error that it ended with
            except KeyboardInterrupt:
                yield _whole(task for task in running if task.done())
                raise
            finally:
                runner.run(_end(endpoint, running))

    def _endpoint(self) -> Endpoint:
        key = os.environ.get("OPENAI_API_KEY")
        return Endpoint(self._url, api_key=key, concurrency=self._concurrency, patience=self._patience)

    async def _row(self, endpoint: Endpoint, row: TokenRow) -> Captured:
        if row.segments is not None and row.segments[0] != row.segments[-1]:
            raise ConfigError("an endpoint reads one document at a time: set data.packing to false for its logit cache")
        body: dict[str, Any] = {"model": self._model, "prompt": row.input_ids.tolist(), "temperature": 0}
        if self._has_ids:
            body |= {"max_tokens": 1, "prompt_logprobs": self._size}
        else:
            body |= {"max_tokens": 0, "echo": True, "logprobs": self._size}
        try:
            reply = await endpoint.ask("POST", "/completions", body)
        except Refused as error:
            if "logprobs" in f"{error.param} {error.said}":
                raise ConfigError(f"teacher.top_k {self._size} is more than the server has: {error.said}") from error
            raise
        try:
            entries = self._entries(reply["choices"][0])
            return self._captured(row, [entries[position + 1] for position in row.positions])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise TrainingError(
                f"{endpoint.url} reports no log-probabilities of prompts as vLLM or tapster do: {error!r}"
            ) from error

    def _entries(self, choice: Mapping[str, Any]) -> list[list[tuple[int, float]]]:
        """(id, log-probability) of each token of the prompt, most likely first."""
        if self._has_ids:
            found = choice["prompt_logprobs"]
            rows = [{int(name): one["logprob"] for name, one in (entry or {}).items()} for entry in found]
        else:
            found = choice["logprobs"]["top_logprobs"]
            rows = [{self._names[name]: value for name, value in (entry or {}).items()} for entry in found]
        return [sorted(row.items(), key=lambda pair: (-pair[1], pair[0])) for row in rows]

    def _captured(self, row: TokenRow, entries: Sequence[Sequence[tuple[int, float]]]) -> Captured:
        ids = np.zeros((len(entries), self._size), np.int64)
        log_probs = np.full((len(entries), self._size), -np.inf, np.float32)
        for idx, entry in enumerate(entries):
            # besides the most likely ones servers list the prompt's own token, which is then the last
            kept = [(token, value) for token, value in entry[: self._size] if value > _LEAST]
            if not kept:
                raise ValueError(f"no log-probability of token {row.positions[idx] + 1}")
            ids[idx, : len(kept)], log_probs[idx, : len(kept)] = zip(*kept, strict=True)
        return Captured(row, ids, log_probs, np.exp(log_probs).sum(axis=1))


def _whole(ended: Iterable[asyncio.Task[Captured]]) -> list[Captured]:
    return [task.result() for task in ended if task.exception() is None]


async def _end(endpoint: Endpoint, running: Collection[asyncio.Task[Captured]]) -> None:
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await endpoint.__aexit__()


class TokenNames:
    """Ids of tokens by what servers call them."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[str, int] | None = None

    def __getitem__(self, name: str) -> int:
        if name.startswith(_TOKEN_ID):
            return int(name.removeprefix(_TOKEN_ID))
        if self._ids is None:
            self._ids = _ids_by_name(self._tokenizer)
        token_id = self._ids.get(name)
        if token_id is None:
            raise TrainingError(
                f"the teacher knows a token {name!r} and the student does not: a logit cache needs the same tokenizer"
            )
        return token_id


def _ids_by_name(tokenizer: Any) -> dict[str, int]:
    from ...runtime.tokenizer.pieces import Pieces
    from .retelling import vocabulary_of_tokenizer

    vocabulary = vocabulary_of_tokenizer(tokenizer)
    pieces = Pieces(vocabulary)
    ids: dict[str, int] = {}
    for token_id in range(vocabulary.size):
        ids.setdefault(_written(pieces[token_id]), token_id)
    return ids


def _written(piece: bytes) -> str:
    """As OpenAI wrote tokens: text, or the bytes of a piece of a character."""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
