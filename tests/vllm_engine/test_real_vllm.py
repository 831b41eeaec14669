"""A real vLLM, started by tapster, on the demo model's checkpoint; transformers is the reference."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from tapster.runtime.engines.base import Token
from tapster.runtime.engines.vllm.ask import ask
from tapster.runtime.engines.vllm.engine import VllmEngine
from tapster.runtime.engines.vllm.profile import remote_profile
from tapster.runtime.errors import ContextOverflow, RequestError
from tapster.runtime.profile import load_profile
from tapster.runtime.runtime import Runtime
from tapster.runtime.sampling import SamplingParams

CHAT = "<|im_start|>user\nWhat is the capital of Japan?<|im_end|>\n<|im_start|>assistant\n"
FEW_NATS = 0.15
"""How far a log-probability in bfloat16 may be from that in 32 bits."""


@pytest.fixture(scope="session")
def reference(checkpoint: Path) -> Any:
    """The model in transformers, in 32 bits."""
    torch = pytest.importorskip("torch", reason="transformers is the reference: pip install 'tapster[dev]'")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()

    def logprobs(ids: list[int]) -> Any:
        with torch.no_grad():
            return torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)

    return logprobs


async def tokens(engine: VllmEngine, ids: list[int], **params: Any) -> list[Token]:
    async with asyncio.timeout(120):
        return [token async for token in engine.generate(ids, SamplingParams(**params))]


async def test_greedy_is_the_references(vllm: VllmEngine, reference: Any) -> None:
    ids = vllm.tokenizer.encode(CHAT)
    made = await tokens(vllm, ids, temperature=0, max_tokens=16, top_logprobs=3)
    assert made[-1].is_eog
    rows = reference([*ids, *(token.id for token in made)])
    for position, token in enumerate(made):
        row = rows[len(ids) - 1 + position]
        assert int(row.argmax()) == token.id
        assert token.logprob == pytest.approx(float(row[token.id]), abs=FEW_NATS)
        assert token.top is not None
        assert token.top[0].id == token.id
        assert [each.logprob for each in token.top] == sorted((each.logprob for each in token.top), reverse=True)
        assert len(token.top) == 3


async def test_a_prompt_is_scored(vllm: VllmEngine, reference: Any) -> None:
    ids = vllm.tokenizer.encode(CHAT)
    generation = vllm.generate(ids, SamplingParams(max_tokens=0, prompt_logprobs=0))
    assert [token async for token in generation] == []
    scored = generation.prompt_logprobs
    assert scored is not None
    assert [token.id for token in scored] == ids
    assert scored[0].logprob is None
    rows = reference(ids)
    for position, token in enumerate(scored[1:]):
        assert token.logprob == pytest.approx(float(rows[position][token.id]), abs=FEW_NATS)


async def test_scored_and_continued(vllm: VllmEngine) -> None:
    ids = vllm.tokenizer.encode(CHAT)
    generation = vllm.generate(ids, SamplingParams(temperature=0, max_tokens=3, prompt_logprobs=2, top_logprobs=1))
    made = [token async for token in generation]
    alone = await tokens(vllm, ids, temperature=0, max_tokens=3)
    assert [token.id for token in made] == [token.id for token in alone]
    assert all(token.top is not None and len(token.top) == 1 for token in made)
    assert generation.prompt_logprobs is not None
    assert all(token.top is not None and len(token.top) == 2 for token in generation.prompt_logprobs[1:])


async def test_seeds(vllm: VllmEngine) -> None:
    ids = vllm.tokenizer.encode("Once upon a time")
    first, again, other = [await tokens(vllm, ids, seed=seed, max_tokens=12) for seed in (1, 1, 2)]
    assert first == again
    assert first != other


async def test_ends_are_forbidden(vllm: VllmEngine) -> None:
    made = await tokens(vllm, vllm.tokenizer.encode(CHAT), temperature=0, max_tokens=24, ignore_eog=True)
    assert len(made) == 24
    assert not any(token.id in vllm.tokenizer.eog_ids for token in made)


async def test_a_bias_counts(vllm: VllmEngine) -> None:
    made = await tokens(vllm, vllm.tokenizer.encode(CHAT), temperature=0, max_tokens=2, logit_bias={1000: 100.0})
    assert [token.id for token in made] == [1000, 1000]


async def test_a_grammar(vllm: VllmEngine) -> None:
    ids = vllm.tokenizer.encode(CHAT)
    made = await tokens(vllm, ids, grammar='root ::= [a-z]{3} " is " ("wet" | "dry")', max_tokens=20)
    text = b"".join(vllm.tokenizer.piece(token.id) for token in made if not token.is_eog).decode()
    assert re.fullmatch("[a-z]{3} is (wet|dry)", text)
    assert made[-1].is_eog


@pytest.mark.parametrize("grammar", ["root ::= nobody", "root ::= <[5]>"])
async def test_a_grammar_that_vllm_cannot_read(vllm: VllmEngine, grammar: str) -> None:
    with pytest.raises(RequestError) as caught:
        await tokens(vllm, [1, 2], grammar=grammar, max_tokens=4)
    assert "\n" not in str(caught.value)
    assert caught.value.param == "grammar"


async def test_cancel_frees_the_server(vllm: VllmEngine) -> None:
    generation = vllm.generate(vllm.tokenizer.encode(CHAT), SamplingParams(ignore_eog=True))
    async for _ in generation:
        generation.cancel()
    async with asyncio.timeout(20):
        while await num_running(vllm):
            await asyncio.sleep(0.1)


async def num_running(engine: VllmEngine) -> float:
    _, body = await ask(engine._config.addresses[0], "/metrics", engine._config)
    lines = [line for line in body.decode().splitlines() if line.startswith("vllm:num_requests_running{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def test_many_at_once(vllm: VllmEngine) -> None:
    prompts = [vllm.tokenizer.encode(CHAT.replace("Japan", country)) for country in ("Japan", "Italy") * 8]
    made = await asyncio.gather(*(tokens(vllm, ids, temperature=0, max_tokens=16) for ids in prompts))
    answers = {b"".join(vllm.tokenizer.piece(token.id) for token in each if not token.is_eog) for each in made}
    assert len(answers) == 2
    assert all(b"Tokyo" in answer or b"Rome" in answer for answer in answers)


async def test_vllms_own_refusal(vllm: VllmEngine) -> None:
    with pytest.raises(RequestError, match="refuses the request") as caught:
        await tokens(vllm, [1, 2], top_logprobs=9, max_tokens=1)
    assert "\n" not in str(caught.value)
    assert caught.value.param in ("logprobs", "top_logprobs")


async def test_the_context_is_full(vllm: VllmEngine) -> None:
    assert len(await tokens(vllm, [5] * 1023, temperature=0)) == 1
    with pytest.raises(ContextOverflow):
        vllm.generate([5] * 1024, SamplingParams())


async def test_the_runtime_makes_the_text(vllm: VllmEngine, checkpoint: Path) -> None:
    runtime = Runtime(load_profile(checkpoint), vllm)
    question = [{"role": "user", "content": "What is the capital of Japan?"}]
    (stream,) = runtime.chat(question, runtime.default_params(temperature=0))
    answer = await stream.collect()
    assert (answer.content, answer.finish_reason) == ("The capital of Japan is Tokyo.", "stop")
    (stream,) = runtime.chat(question, runtime.default_params(temperature=0), stop=["n is T"])
    answer = await stream.collect()
    assert (answer.content, answer.stop_reason) == ("The capital of Japa", "n is T")


def test_the_profile_of_a_running_server(real_vllm: VllmEngine, checkpoint: Path) -> None:
    config = real_vllm._config
    spec = f"vllm://{config.addresses[0].authority}"
    profile = remote_profile(spec, config=config)
    assert (profile.format, profile.name, profile.context_length) == ("vllm", checkpoint.name, 1024)
    assert profile.path == checkpoint
    assert profile.end_of_turn == load_profile(checkpoint).end_of_turn
