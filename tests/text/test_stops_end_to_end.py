"""Stops over a real model and a vocabulary in which no stop string is a token of its own.

A grammar makes the random model write a given text in whatever tokens it likes.
"""

import asyncio

import pytest

from tapster.runtime.runtime import Runtime

QUESTION = [{"role": "user", "content": "Hello"}]


def literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'root ::= "{escaped}"'


def test_the_vocabulary_is_awkward(tiny_runtime: Runtime) -> None:
    tokenizer = tiny_runtime.engine.tokenizer
    pieces = [tokenizer.piece(token) for token in tokenizer.encode("Hello.<|end|>\n")]
    assert pieces == [b"Hello", b".<", b"|", b"end", b"|", b">\n"]
    assert tiny_runtime.profile.end_of_turn == "<|end|>"


@pytest.mark.parametrize("seed", range(12))
async def test_a_plain_text_end_of_turn_stops_in_every_tokenization(tiny_runtime: Runtime, seed: int) -> None:
    params = tiny_runtime.default_params(
        seed=seed,
        temperature=2,
        top_k=0,
        top_p=1,
        min_p=0,
        top_logprobs=0,
        grammar=literal("Hello.<|end|>\nHello.Hello."),
    )
    (stream,) = tiny_runtime.chat(QUESTION, params)
    answer = await stream.collect()
    assert (answer.content, answer.finish_reason, answer.stop_reason) == ("Hello.", "stop", "<|end|>")
    shown = b"".join(token.bytes for token in answer.tokens)
    assert shown in (b"Hello.", b"Hello.<")
    assert answer.usage.completion_tokens == len(answer.tokens)


async def test_a_clients_stops_are_added_to_the_models(tiny_runtime: Runtime) -> None:
    params = tiny_runtime.default_params(seed=1, grammar=literal("Hello.<|end|>\nHello"))
    (stream,) = tiny_runtime.chat(QUESTION, params, stop=["\n", "never"])
    answer = await stream.collect()
    assert (answer.content, answer.stop_reason) == ("Hello.", "<|end|>")


async def test_the_next_turn_finds_everything_before_the_stop_in_the_cache(tiny_runtime: Runtime) -> None:
    params = tiny_runtime.default_params(seed=3, grammar=literal("Hello there.<|end|>\nHello"), top_logprobs=0)
    (stream,) = tiny_runtime.chat(QUESTION, params)
    first = await stream.collect()
    whole = [token for token in first.tokens if b"<" not in token.bytes]
    prompt = tiny_runtime.engine.tokenizer.encode(tiny_runtime.render(QUESTION))
    longer = [*prompt, *(token.id for token in whole), 5, 6, 7]
    (stream,) = tiny_runtime.complete(longer, tiny_runtime.default_params(max_tokens=1))
    await stream.collect()
    assert stream.usage.cached_tokens == len(prompt) + len(whole)


@pytest.mark.parametrize("text", ["Hé€😀.Hello", "<|en", "Hello<|end", "a\nb"])
async def test_streaming_equals_the_whole_for_every_way_to_end(tiny_runtime: Runtime, text: str) -> None:
    for limit in (1, 3, 7, None):
        params = tiny_runtime.default_params(seed=5, max_tokens=limit, grammar=literal(text))
        whole, pieces = tiny_runtime.chat(QUESTION, params, stop=["\nb"])[0], []
        answer = await whole.collect()
        (stream,) = tiny_runtime.chat(QUESTION, params, stop=["\nb"])
        pieces = [delta.content async for delta in stream]
        assert "".join(pieces) == answer.content
        assert (stream.finish_reason, stream.stop_reason) == (answer.finish_reason, answer.stop_reason)
        if limit is None:
            assert answer.content == text.split("\nb")[0]


async def test_bytes_that_never_become_a_character_come_out_as_a_mark(tiny_runtime: Runtime) -> None:
    euro = tiny_runtime.engine.tokenizer.encode("€")
    assert len(euro) == 3
    params = tiny_runtime.default_params(temperature=0, max_tokens=2, logit_bias={euro[0]: 100.0})
    (stream,) = tiny_runtime.complete("Hello", params)
    assert set((await stream.collect()).content) == {"\N{REPLACEMENT CHARACTER}"}


async def test_a_control_token_is_shown_only_to_the_matcher(tiny_runtime: Runtime) -> None:
    tokenizer = tiny_runtime.engine.tokenizer
    (mark,) = tokenizer.encode("<|mark|>")
    assert tokenizer.is_control(mark)
    always = tiny_runtime.default_params(temperature=0, max_tokens=3, logit_bias={mark: 100.0})
    (hidden,) = tiny_runtime.complete("Hello", always)
    answer = await hidden.collect()
    assert (answer.content, answer.usage.completion_tokens) == ("", 3)
    (stopped,) = tiny_runtime.complete("Hello", always, stop=["<|mark|>"])
    answer = await stopped.collect()
    assert (answer.finish_reason, answer.stop_reason, answer.usage.completion_tokens) == ("stop", "<|mark|>", 0)


async def test_the_stop_can_be_included(tiny_runtime: Runtime) -> None:
    params = tiny_runtime.default_params(seed=1, grammar=literal("Hello. the end"))
    (stream,) = tiny_runtime.chat(QUESTION, params, stop=[" the"], include_stop=True)
    assert (await stream.collect()).content == "Hello. the"


async def test_a_cancel_by_another_task_drops_what_is_held(tiny_runtime: Runtime) -> None:
    params = tiny_runtime.default_params(seed=1, grammar=literal("Hello" + " th" * 200))
    (stream,) = tiny_runtime.chat(QUESTION, params, stop=["Hello" + " th" * 300])
    reading = asyncio.create_task(stream.collect())
    async with asyncio.timeout(20):
        while tiny_runtime.stats()["running"] == 0:
            await asyncio.sleep(0)
    stream.cancel()
    answer = await reading
    assert (answer.finish_reason, answer.stop_reason) == (None, None)
    assert answer.content == ""
