"""One round of one contender: its server is started, warmed up, timed and stopped."""

import re
from collections.abc import Sequence

from ...runtime.errors import TargetError
from ..bench.events import Answer
from ..bench.own_server import OwnServer, free_port, own_server, serve_command
from ..bench.target import Target, first_model
from ..bench.token_prompts import token_prompt, token_prompts
from .memory import peak_tree_bytes
from .options import SHORT_PROMPT_TOKENS, STREAMS, CompareOptions
from .prepare import Prepared

_WARM_UP_TOKENS = 8
_LAST_WORDS = re.compile(r"^the server ended with status -?\d+: tapster: ")

EXPLAINS = {
    "load_s": "from the start of `tapster serve` to its first readiness, imports inside; the file may be in the "
    "system's cache",
    "prefill_tps": "prompt tokens over the time from the request to the end of an answer of one token",
    "decode_tps": "tokens after the first over the time they took, one stream",
    "streams_tps": f"the same of {STREAMS} streams together",
    "ttft_ms": f"from a request of {SHORT_PROMPT_TOKENS} prompt tokens to its first text",
}


async def run_round(prepared: Prepared, options: CompareOptions, seed: str) -> dict[str, float | None]:
    """What one server does, over HTTP. TargetError with the server's last words when it does not."""
    port = free_port()
    with own_server(serve_command(prepared.model, port, _serve_options(prepared, options)), port) as server:
        try:
            load_s = await server.until_ok("/ready", options.timeout_s)
            client = _Client(server, await first_model(server.address), options)
            await client.warm_up(seed)
            sample = await client.sample(seed)
        except TargetError as error:
            raise TargetError(_plain(server, error)) from None
        return {"load_s": load_s, **sample, "peak_bytes": None if prepared.path is None else _peak(server)}


def decode_rate(answers: Sequence[Answer]) -> float | None:
    """Tokens after each stream's first, over the time from the first text of any to the end of all."""
    begun = [answer.times_s[0] for answer in answers if answer.times_s]
    duration_s = max(answer.ended_s for answer in answers) - min(begun) if begun else 0.0
    tokens = sum(answer.new_tokens - 1 for answer in answers)
    return tokens / duration_s if duration_s > 0 and tokens > 0 else None


class _Client:
    """Asks a server for answers to prompts of so many of its own tokens."""

    def __init__(self, server: OwnServer, model_id: str, options: CompareOptions) -> None:
        self._server = server
        self._target = Target(server.address, model_id, timeout_s=options.timeout_s)
        self._options = options

    async def warm_up(self, seed: str) -> None:
        """All that will be timed, in short: engines compile for shapes they have not seen."""
        await self._long(f"{seed}/warm-up")
        for count in (1, STREAMS):
            await self._short(count, _WARM_UP_TOKENS, f"{seed}/warm-up/{count}")

    async def sample(self, seed: str) -> dict[str, float | None]:
        """One value of every speed."""
        [whole] = await self._long(f"{seed}/long")
        single = await self._short(1, self._options.new_tokens, f"{seed}/single")
        streams = await self._short(STREAMS, self._options.new_tokens, f"{seed}/streams")
        ttft_s = single[0].ttft_s
        return {
            "prefill_tps": self._options.prompt_tokens / (whole.ended_s - whole.sent_s),
            "decode_tps": decode_rate(single),
            "streams_tps": decode_rate(streams),
            "ttft_ms": None if ttft_s is None else 1000 * ttft_s,
        }

    async def _long(self, seed: str) -> list[Answer]:
        ids = await token_prompt(self._server.address, self._options.prompt_tokens, seed)
        return await self._answers([ids], 1)

    async def _short(self, count: int, new_tokens: int, seed: str) -> list[Answer]:
        prompts = await token_prompts(self._server.address, count, SHORT_PROMPT_TOKENS, seed)
        return await self._answers(prompts, new_tokens)

    async def _answers(self, prompts: list[list[int]], new_tokens: int) -> list[Answer]:
        answers = await self._target.run([self._target.completion(ids, new_tokens) for ids in prompts])
        for answer in answers:
            if answer.new_tokens != new_tokens:
                raise TargetError(f"an answer ended after {answer.new_tokens} of {new_tokens} tokens")
        return answers


def _serve_options(prepared: Prepared, options: CompareOptions) -> list[str]:
    words = [] if prepared.contender.is_remote else ["--engine", prepared.engine]
    for name, value in (("--threads", options.threads), ("--context", options.context)):
        if value is not None:
            words += [name, str(value)]
    return words


def _peak(server: OwnServer) -> float:
    return float(peak_tree_bytes(server.process.pid))


def _plain(server: OwnServer, error: TargetError) -> str:
    """Why it does not run: what the process said last when it has ended, else what its answer was."""
    try:
        server.check_alive()
    except TargetError as ended:
        error = ended
    return _LAST_WORDS.sub("", str(error))
