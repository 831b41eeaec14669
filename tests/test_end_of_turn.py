"""The end of turn derived from a template: known templates, odd ones, and nonsense."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapster.runtime.chat.builtin import builtin_source
from tapster.runtime.chat.end_of_turn import derive_end_of_turn
from tapster.runtime.chat.template import ChatTemplate

FOLDER = Path(__file__).parent / "templates"


def derived(source: str) -> str | None:
    return derive_end_of_turn(ChatTemplate(source, bos_token="<s>", eos_token="</s>"))


def turns(each: str, after: str = "") -> str:
    """A template that writes ``each`` for every message, and ``after`` at the end."""
    return f"{{% for m in messages %}}{each}{{% endfor %}}{after}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chatml", "<|im_end|>"),
        ("kodalite", "<|end|>"),
        ("llama3", "<|eot_id|>"),
        ("zephyr", "</s>"),
        ("alpaca", "### Instruction:"),
        ("memphis", "### User:"),
        ("memphis-rationale", "### User:"),
    ],
)
def test_builtin_templates(name: str, expected: str):
    assert derived(builtin_source(name)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gemma", "<end_of_turn>"),
        ("mistral", "</s>"),
        ("phi3", "<|end|>"),  # the end of a conversation has eos_token behind it
        ("qwen3", "<|im_end|>"),  # puts an empty reasoning block before the last answer
        ("harmony", "<|return|>"),  # <|end|> is in the history, and ends reasoning too
        ("r1", "<｜end▁of▁sentence｜>"),  # its generation prompt ends with "<think>\n"
        ("parts", "|<user>"),  # nothing ends a turn, and content is a list
    ],
)
def test_model_templates(name: str, expected: str):
    assert derived((FOLDER / f"{name}.jinja").read_text("utf-8")) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (turns("{{ m.content }}{{ eos_token }}"), "</s>"),
        (turns("{{ m.content }}<|im_end|><|endoftext|>"), "<|im_end|>"),
        (turns("<answer>{{ m.content }}</answer>{{ eos_token }}"), "</answer>"),
        (turns("{{ m.content | upper }}\n\n<|end|>\n"), "<|end|>"),
        (turns("{{ m.content | trim }}[e~[\n"), "[e~["),
        (turns("{{ m.content }}{{ '<|end|>' if m.role == 'assistant' }}\n"), "<|end|>"),
        (turns("{% if not loop.first %}<|sep|>{% endif %}{{ m.content }}"), "<|sep|>"),
    ],
    ids=["eos only", "two markers", "inside tags", "altered text", "brackets", "assistant only", "separator"],
)
def test_ends(source: str, expected: str):
    assert derived(source) == expected


FOOTER = "\nToday is {{ strftime_now('%d %B %Y') }}."
ALPACA = "### {{ 'Instruction' if m.role == 'user' else 'Response' }}:\n{{ m.content }}\n\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (turns("{{ m.content }}<|im_end|>", FOOTER), "<|im_end|>"),
        (turns("{{ m.content }}<|im_end|>", "Today is Monday."), "<|im_end|>"),
        (turns("{{ m.content }}<|im_end|>", "<|im_start|>footer"), "<|im_end|>"),
        (turns(ALPACA, FOOTER), "### Instruction:"),
        (turns(ALPACA, "### Info: it is Monday"), "### Instruction:"),
    ],
    ids=["line", "same line", "marker", "after a header", "like a header"],
)
def test_footers(source: str, expected: str):
    assert derived(source) == expected


@pytest.mark.parametrize(
    "condition",
    [
        "messages[0].role != 'system'",
        "messages[0].role == 'system'",
        "messages[-1].role == 'user'",
        "messages[-1].role == 'assistant'",
        "tools is none",
        "tools is not none",
    ],
)
def test_templates_that_refuse_some_conversations(condition: str):
    refuse = f"{{% if {condition} %}}{{{{ raise_exception('no') }}}}{{% endif %}}"
    assert derived(refuse + turns("<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n")) == "<|im_end|>"


def test_a_header_in_plain_words_keeps_its_line_break():
    assert derived(turns("{{ m.role | title }}: {{ m.content }}\n\n")) == "\nUser:"


@pytest.mark.parametrize(
    "source",
    [
        "",
        "hello",
        "{{ raise_exception('no') }}",
        "{{ nothing.at.all }}",
        "{{ messages[0].content }}",
        "{{ messages | length }}",
        turns("{{ m.content }}"),
        turns("{{ m.content }}\n"),
        turns("{{ m.content }} and "),
        turns("{{ m.content }}."),
        turns("{{ m.content }} ### "),
        turns("{{ m.content }}|"),
        turns("{{ m.content | reverse }}<|end|>"),
        turns("{{ m.content | length }}<|end|>"),
    ],
)
def test_nonsense_gives_none(source: str):
    assert derived(source) is None


END = st.from_regex(r"\A<\|[a-z][a-z_]{0,11}\|>\Z") | st.from_regex(r"\A</[a-z]{1,8}>\Z")


@settings(max_examples=60, deadline=None)
@given(END, st.sampled_from(["", "\n", "\n\n", " "]), st.sampled_from(["", "\n", " ", "\n\n"]))
def test_any_marker_is_found_through_any_space(end: str, before: str, after: str):
    assert derived(turns("@@{{ m.role }}@@ {{ m.content }}{{ '" + repr(before + end + after)[1:-1] + "' }}")) == end


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=10), st.text(max_size=10))
def test_what_is_derived_is_never_too_common(after: str, footer: str):
    code = str.maketrans({"{": "(", "}": ")"})
    source = turns("{{ m.content }}" + after.translate(code), footer.translate(code))
    end = derived(source)
    assert end is None or (any(map(str.isalnum, end)) and not end.strip().isalnum())
