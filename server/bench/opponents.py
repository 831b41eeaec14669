"""The programs that our engines are measured against, each as its own documentation runs it, and our own without HTTP.

``python -m tapster.server.bench.opponents NAME FOLDER THREADS`` is a ``json_child``: it loads the model, says so, and
answers every load (``prompts`` of token ids, ``new_tokens`` for each) with ``wall_s``, ``first_s``, from the start to
the first token (null where that cannot be seen), and ``new_tokens`` made. Every answer is greedy and goes on when a
text would end, so that all do the same work.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ...runtime.engines.registry import ENGINES
from ...runtime.errors import TapsterError
from .json_child import answers, questions

if TYPE_CHECKING:
    from ...runtime.text.stream import TextStream

Prompts = list[list[int]]
Opponent = Callable[[Prompts, int, Callable[[], None]], int]
"""Prompts, new tokens for each, and what to call when there is a first one, to the number of tokens made."""


def onnxruntime_genai(folder: Path, threads: int) -> Opponent:
    """The generator loop of onnxruntime-genai's examples, without a detokenizer."""
    genai: Any = import_module("onnxruntime_genai")  # it has no types
    config = genai.Config(str(folder))
    options = {"session_options": {"intra_op_num_threads": threads}}
    config.overlay(json.dumps({"model": {"decoder": options}}))
    model = genai.Model(config)

    def run(prompts: Prompts, new_tokens: int, first_token: Callable[[], None]) -> int:
        [ids] = prompts
        length = len(ids) + new_tokens
        params = genai.GeneratorParams(model)
        params.set_search_options(do_sample=False, min_length=length, max_length=length)
        generator = genai.Generator(model, params)
        generator.append_tokens(ids)
        made = 0
        while not generator.is_done():
            generator.generate_next_token()
            made += len(generator.get_next_tokens())
            first_token()
        return made

    return run


def mlx_lm(folder: Path, _threads: int) -> Opponent:
    """``stream_generate`` for one prompt, ``batch_generate`` for several. MLX has no number of threads to set.

    On a CPU its model gets activations in float32, as tapster's has them there: in bfloat16 it would be several times
    slower and the contest about that alone.
    """
    import mlx.core as mx
    from mlx_lm import batch_generate, load, stream_generate

    model, tokenizer, *_ = load(str(folder))
    if mx.default_device() == mx.cpu:
        model.set_dtype(mx.float32)
        mx.eval(model.parameters())
    tokenizer.eos_token_ids = set()

    def run(prompts: Prompts, new_tokens: int, first_token: Callable[[], None]) -> int:
        if len(prompts) > 1:
            found = batch_generate(model, tokenizer, prompts, max_tokens=new_tokens, return_token_ids=True)
            return sum(map(len, found.token_ids or ()))
        made = 0
        for _ in stream_generate(model, tokenizer, prompts[0], max_tokens=new_tokens):
            first_token()
            made += 1
        return made

    return run


def transformers(folder: Path, threads: int) -> Opponent:
    """``model.generate``, in the checkpoint's own type on a GPU and in float32 on a CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "auto" if device == "cuda" else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    model.to(device).eval()

    def run(prompts: Prompts, new_tokens: int, first_token: Callable[[], None]) -> int:
        ids = torch.tensor(prompts, device=device)
        greedy: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            streamer=_FirstToken(first_token) if len(prompts) == 1 else None,
            **greedy,
        )
        return made.numel() - ids.numel()

    return run


class _FirstToken:
    """A streamer as ``generate`` wants it: it is given the prompt and then every token."""

    def __init__(self, first_token: Callable[[], None]) -> None:
        self._first_token = first_token
        self._has_prompt = False

    def put(self, _ids: Any) -> None:
        if self._has_prompt:
            self._first_token()
        self._has_prompt = True

    def end(self) -> None:
        """Nothing is left to show."""


def tapster(folder: Path, threads: int, engine: str) -> Opponent:
    """Our runtime and one of its engines in this process."""
    from ...runtime.engines.registry import choose_engine
    from ...runtime.models import find_model
    from ...runtime.runtime import Runtime

    profile = find_model(str(folder))
    kind = choose_engine(profile.format, engine)
    runtime = Runtime.load(profile, kind.make_config({"threads": threads}), engine=engine)
    runner = asyncio.Runner()

    async def read(stream: "TextStream", first_token: Callable[[], None]) -> int:
        async for _ in stream:
            first_token()
        return stream.usage.completion_tokens

    async def answer_all(prompts: Prompts, new_tokens: int, first_token: Callable[[], None]) -> int:
        params = runtime.default_params(temperature=0.0, ignore_eog=True, max_tokens=new_tokens)
        streams = [runtime.complete(ids, params)[0] for ids in prompts]
        return sum(await asyncio.gather(*(read(stream, first_token) for stream in streams)))

    def run(prompts: Prompts, new_tokens: int, first_token: Callable[[], None]) -> int:
        return runner.run(answer_all(prompts, new_tokens, first_token))

    return run


OPPONENTS: dict[str, Callable[[Path, int], Opponent]] = {
    "onnxruntime-genai": onnxruntime_genai,
    "mlx_lm": mlx_lm,
    "model.generate": transformers,
    **{f"tapster {name}": partial(tapster, engine=name) for name in ENGINES},
}


def main(name: str, folder: Path, threads: int) -> None:
    """What the process does: load, say so, then answer every load."""
    answer = answers()
    try:
        opponent = OPPONENTS[name](folder, threads)
    except (TapsterError, ImportError) as error:
        answer({"error": f"{name}: {error}"})
        return
    answer({"is_ready": True})
    for load in questions():
        answer(_timed(opponent, load["prompts"], load["new_tokens"]))


def _timed(opponent: Opponent, prompts: Prompts, new_tokens: int) -> dict[str, float | None]:
    times: list[float] = []

    def first_token() -> None:
        if not times:
            times.append(perf_counter())

    started_s = perf_counter()
    made = opponent(prompts, new_tokens, first_token)
    ended_s = perf_counter()
    return {"wall_s": ended_s - started_s, "first_s": times[0] - started_s if times else None, "new_tokens": made}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
