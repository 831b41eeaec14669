"""Prompts that are what they say."""

from tapster.server.bench.prompts import prompt, prompts, prompts_with_prefix


def test_prompts_are_made_by_their_seed() -> None:
    assert prompt(50, "a") == prompt(50, "a") != prompt(50, "b")
    assert len(set(prompts(8, 50, "a"))) == 8
    assert len(prompt(24, "a").replace(".", " .").split()) == 24


def test_prompts_with_prefix_share_exactly_it() -> None:
    texts = prompts_with_prefix(8, 40, 10, "a")
    prefix = prompt(40, "a/prefix")
    assert all(text.startswith(prefix + " ") for text in texts)
    assert len({text.removeprefix(prefix) for text in texts}) == 8
