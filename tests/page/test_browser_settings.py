"""The page in a real browser: settings, system prompt, errors, reasoning, and a telephone's screen."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_page import OpenTab
from page_server import PageServer

from tapster.runtime.runtime import Runtime

STORY = "Write a very long story about a dog."


@pytest.fixture
def reasoning_server(demo_model: Path, tmp_path: Path) -> Iterator[PageServer]:
    """A model whose template opens a reasoning block that it never closes."""
    template = tmp_path / "reasoning.jinja"
    template.write_text(
        "{% for message in messages %}<|im_start|>{{ message.role }}\n"
        "{{ message.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    runtime = Runtime.open(demo_model, chat_template=str(template))
    with PageServer(runtime) as server:
        yield server
    runtime.close()


async def _expected(runtime: Runtime, *messages: tuple[str, str]) -> str:
    params = runtime.default_params(temperature=0.0, max_tokens=16)
    (stream,) = runtime.chat([{"role": role, "content": text} for role, text in messages], params)
    return " ".join((await stream.collect()).content.split())


def test_fields_begin_with_the_defaults_of_the_model(open_tab: OpenTab, server: PageServer) -> None:
    tab = open_tab()
    defaults = server.runtime.default_params()
    assert float(tab.page.locator("#temperature").locator("input, textarea").input_value()) == defaults.temperature
    assert int(tab.page.locator("#top_k").locator("input, textarea").input_value()) == defaults.top_k
    assert tab.page.locator("#max_tokens").locator("input, textarea").input_value() == ""


def test_the_facts_of_the_model_are_shown(open_tab: OpenTab, server: PageServer) -> None:
    facts = open_tab().page.inner_text("#facts")
    assert server.runtime.profile.name in facts
    assert "135 M" in facts
    assert "<|im_end|>" in facts


def test_settings_and_system_prompt_reach_the_model(open_tab: OpenTab, server: PageServer) -> None:
    tab = open_tab()
    tab.set(temperature="0", max_tokens="16", system="You are a pirate.")
    expected = server.run(_expected(server.runtime, ("system", "You are a pirate."), ("user", "Who are you?")))
    assert tab.ask("Who are you?") == expected


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.set(temperature="0", max_tokens="24")
    whole = tab.ask(STORY)
    stop = whole.split()[6]
    tab.set(stop=f"nothing like it\n{stop}")
    tab.press("Retry")
    tab.wait_for_begin()
    assert tab.wait_for_end() == whole[: whole.index(stop)].strip()


def test_an_error_is_one_line_and_the_message_stays(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.set(max_tokens="many")
    tab.send("Hello!")
    tab.page.wait_for_selector("#status [role=alert]")
    assert tab.status() == "max_tokens must be a whole number, not 'many'"
    assert tab.box() == "Hello!"
    assert tab.questions() == []


def test_a_message_that_does_not_fit_is_given_back_with_both_numbers(open_tab: OpenTab, server: PageServer) -> None:
    tab = open_tab()
    tab.set(max_tokens="4")
    answer = tab.ask("Hello!")
    text = "word " * server.runtime.stats()["context_length"]
    tab.send(text)
    tab.page.wait_for_selector("#status [role=alert]")
    assert f"the context holds {server.runtime.stats()['context_length']}" in tab.status()
    assert tab.box() == text
    assert tab.answers() == [answer], "the chat before it stays"
    tab.keep_screenshot("page-error")


def test_a_server_that_drains_says_so_and_the_message_stays(open_tab: OpenTab, server: PageServer) -> None:
    tab = open_tab()
    server.holder.status = "draining"
    tab.send("Hello!")
    tab.page.wait_for_selector("#status [role=alert]")
    server.holder.status = "ready"
    assert "shutting down" in tab.status()
    assert tab.box() == "Hello!"


def test_reasoning_is_shown_while_it_comes_and_folded_afterwards(
    open_tab: OpenTab, reasoning_server: PageServer
) -> None:
    tab = open_tab(reasoning_server.url)
    tab.send(STORY)
    thought = tab.page.locator("#chat .thought-group > :nth-child(2)")
    thought.wait_for(state="visible")
    tab.wait_for_text(20)
    tab.stop()
    tab.page.wait_for_selector("#message .submit-button")
    thought.wait_for(state="hidden")
    assert "Reasoning" in tab.page.inner_text("#chat .thought-group")
    tab.keep_screenshot("page-reasoning")


def test_a_telephone_shows_the_chat_not_the_settings(open_tab: OpenTab) -> None:
    tab = open_tab(width=390, height=844, color_scheme="dark")
    tab.set(max_tokens="24")
    tab.ask("Hello!")
    tab.keep_screenshot("page-telephone")
    for part in ("#chat", "#message", "#status"):
        place = tab.page.locator(part).bounding_box()
        assert place is not None
        assert place["x"] >= 0
        assert place["x"] + place["width"] <= 390
        assert place["y"] + place["height"] <= 844
    side_bar = tab.page.locator(".sidebar").bounding_box()
    assert side_bar is not None
    assert side_bar["x"] + side_bar["width"] <= 0
