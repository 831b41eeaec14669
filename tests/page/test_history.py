"""The chat in Gradio's form and as messages for the model."""

from tapster.server.page.history import answer_messages, cut_before, model_messages, user_message


def _parts(role: str, text: str, title: str | None = None) -> dict[str, object]:
    """A message as Gradio sends it back: its content in parts."""
    return {
        "role": role,
        "content": [{"type": "text", "text": text}],
        "metadata": {"title": title} if title else None,
        "options": None,
    }


CHAT = [
    _parts("user", "one"),
    _parts("assistant", "hmm", "Reasoning"),
    _parts("assistant", "1"),
    _parts("user", "two"),
    _parts("assistant", "2"),
]


def test_the_model_gets_the_turns_and_the_reasoning_with_its_answer() -> None:
    assert model_messages(CHAT, "") == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1", "reasoning_content": "hmm"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "2"},
    ]


def test_the_system_prompt_comes_first_unless_it_is_blank() -> None:
    chat = [user_message("one")]
    assert model_messages(chat, " be brief\n")[0] == {"role": "system", "content": "be brief"}
    assert model_messages(chat, " \n") == [{"role": "user", "content": "one"}]


def test_an_answer_that_was_stopped_while_it_reasoned_is_an_empty_turn() -> None:
    chat = [user_message("one"), *answer_messages("", "hmm", is_done=True), user_message("two")]
    assert [message["role"] for message in model_messages(chat, "")] == ["user", "assistant", "user"]
    assert model_messages(chat, "")[1] == {"role": "assistant", "content": "", "reasoning_content": "hmm"}


def test_reasoning_is_open_until_the_answer_begins_or_all_is_done() -> None:
    def status(content: str, is_done: bool) -> str:
        return answer_messages(content, "hmm", is_done)[0]["metadata"]["status"]

    assert status("", False) == "pending"
    assert status("1", False) == "done"
    assert status("", True) == "done"
    assert answer_messages("1", "", is_done=False) == [{"role": "assistant", "content": "1"}]


def test_the_chat_is_cut_before_the_message_that_is_asked_again() -> None:
    assert cut_before(CHAT, 4) == (CHAT[:3], "two")
    assert cut_before(CHAT, 3) == (CHAT[:3], "two")
    assert cut_before(CHAT, 1) == ([], "one")
    assert cut_before(CHAT, 99) == (CHAT[:3], "two")
    assert cut_before([], 0) == ([], "")
