"""The page in a real browser: an answer streams, is stopped, asked for again, changed, and forgotten."""

from chat_page import OpenTab
from page_server import PageServer

STORY = "Write a very long story about a dog."
WATCH_ANSWER = """() => {
  window.lengths = new Set();
  const look = () => window.lengths.add((document.querySelector('#chat .bot')?.innerText ?? '').length);
  const what = { subtree: true, childList: true, characterData: true };
  new MutationObserver(look).observe(document.querySelector('#chat'), what);
}"""


def test_an_answer_is_seen_growing(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.page.wait_for_selector("#chat")
    tab.page.evaluate(WATCH_ANSWER)
    tab.set(temperature="0", max_tokens="60")
    answer = tab.ask(STORY)
    tab.keep_screenshot("page")
    lengths = tab.page.evaluate("() => [...window.lengths]")
    assert len(lengths) > 3
    assert lengths == sorted(lengths), "an update took text away"
    assert len(answer) > 60
    assert tab.questions() == [STORY]
    assert tab.box() == ""


def test_the_line_below_tells_speed_and_context(open_tab: OpenTab, server: PageServer) -> None:
    tab = open_tab()
    tab.set(max_tokens="12")
    tab.ask(STORY)
    assert "12 tokens · " in tab.status()
    assert " tokens/s · first token " in tab.status()
    assert "max tokens reached" in tab.status()
    assert f" / {server.runtime.stats()['context_length']:,}" in tab.status()


def test_stop_frees_the_sequence_and_keeps_what_came(open_tab: OpenTab, server: PageServer) -> None:
    tab = open_tab()
    tab.send(STORY)
    tab.wait_for_text(20)
    assert server.num_running() == 1
    tab.stop()
    server.wait_until(lambda: server.num_running() == 0)
    answer = tab.wait_for_end()
    assert len(answer) >= 20
    assert "stopped" in tab.status()


def test_a_closed_tab_frees_the_sequence(open_tab: OpenTab, server: PageServer) -> None:
    tab = open_tab()
    tab.send(STORY)
    tab.wait_for_text(20)
    assert server.num_running() == 1
    tab.page.close()
    server.wait_until(lambda: server.num_running() == 0)


def test_a_message_typed_meanwhile_waits_in_its_box(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.send(STORY)
    tab.wait_for_text(20)
    tab.send("And a cat?")
    tab.wait_for_text(60)
    tab.stop()
    tab.wait_for_end()
    assert tab.questions() == [STORY]
    assert tab.box() == "And a cat?"


def test_retry_answers_the_same_message_again(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.set(temperature="0", max_tokens="8")
    first = tab.ask(STORY)
    tab.set(max_tokens="16")
    tab.press("Retry")
    tab.wait_for_begin()
    second = tab.wait_for_end()
    assert len(second) > len(first)
    assert second.startswith(first)
    assert tab.questions() == [STORY]


def test_a_changed_message_is_answered_and_what_came_after_it_goes(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.set(temperature="0", max_tokens="8")
    tab.ask("Hello!")
    tab.ask("And who are you?")
    tab.page.locator("#chat button[aria-label='Edit']").first.click()
    tab.page.fill("#chat textarea", STORY)
    tab.press("Submit")
    tab.wait_for_begin()
    assert tab.wait_for_end().startswith("Once upon")
    assert tab.questions() == [STORY]
    assert len(tab.answers()) == 1


def test_undo_takes_the_message_back_into_the_box(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.set(max_tokens="4")
    tab.ask("Hello!")
    tab.press("Undo")
    tab.page.wait_for_selector("#chat .placeholder")
    assert tab.box() == "Hello!"


def test_clear_forgets_the_chat_and_ends_a_running_answer(open_tab: OpenTab, server: PageServer) -> None:
    tab = open_tab()
    tab.send(STORY)
    tab.wait_for_text(20)
    tab.press("Clear")
    server.wait_until(lambda: server.num_running() == 0)
    tab.page.wait_for_selector("#message .submit-button")
    tab.page.wait_for_selector("#chat .placeholder")
    assert tab.questions() == tab.answers() == []


def test_two_browsers_are_answered_at_once(open_tab: OpenTab, server: PageServer) -> None:
    tabs = [open_tab(), open_tab()]
    for tab in tabs:
        tab.send(STORY)
    for tab in tabs:
        tab.wait_for_text(20)
    assert server.num_running() == 2
    assert server.is_alive()
    for tab in tabs:
        tab.stop()
        assert len(tab.wait_for_end()) >= 20
