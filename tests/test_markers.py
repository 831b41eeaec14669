"""The markers of reasoning and tool calls, as templates declare them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapster.runtime.chat.builtin import BUILTIN_NAMES, builtin_source
from tapster.runtime.chat.markers import (
    is_inside_reasoning,
    opens_reasoning,
    reasoning_markers,
    tool_call_markers,
)
from tapster.runtime.chat.template import ChatTemplate

FOLDER = Path(__file__).parent / "templates"
THINK = ("<think>", "</think>")


def source(name: str) -> str:
    return (FOLDER / f"{name}.jinja").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\n{{ r }}</think>", THINK),
        ("{{ content.split('</think>')[-1] }}", THINK),
        ("{{ '<thought>' + r + '</thought>' }}", ("<thought>", "</thought>")),
        ("<reasoning>{{ r }}</reasoning>", ("<reasoning>", "</reasoning>")),
        (
            "{% set open = '<seed:think>' %}{% set close = '</seed:think>' %}",
            ("<seed:think>", "</seed:think>"),
        ),
        ("<|START_THINKING|>{{ r }}<|END_THINKING|>", ("<|START_THINKING|>", "<|END_THINKING|>")),
        ("{{ '[THINK]' + r + '[/THINK]' }}", ("[THINK]", "[/THINK]")),
        ("{{ '<|channel>thought\n' + r + '<channel|>' }}", ("<|channel>thought", "<channel|>")),
        ("<reasoning>{{ r }}<think>x</think></reasoning>", ("<reasoning>", "</reasoning>")),
        ("{% broken <think></think>", THINK),
        ("{# <think></think> #}{{ content }}", None),
        ("Think before you answer. <thinker></thinker>", None),
        ("<think>{{ r }}", None),
        ("", None),
    ],
)
def test_reasoning_markers(text: str, expected: tuple[str, str] | None):
    assert reasoning_markers(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<tool_call>{{ c }}</tool_call>", ("<tool_call>", "</tool_call>")),
        ("<tool_calls><tool_call>{{ c }}</tool_call></tool_calls>", ("<tool_calls>", "</tool_calls>")),
        ("<TOOLCALL>{{ c }}</TOOLCALL>", ("<TOOLCALL>", "</TOOLCALL>")),
        ("<ns:tool_call>{{ c }}</ns:tool_call>", ("<ns:tool_call>", "</ns:tool_call>")),
        ("<function_calls>{{ c }}</function_calls>", ("<function_calls>", "</function_calls>")),
        (
            "{{ '<|tool_call_start|>' }}{{ '<|tool_call_end|>' }}",
            ("<|tool_call_start|>", "<|tool_call_end|>"),
        ),
        (
            "<｜tool▁calls▁begin｜>{{ c }}<｜tool▁calls▁end｜>",
            ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
        ),
        ("<|tool_call>call:f<tool_call|>", ("<|tool_call>", "<tool_call|>")),
        ("{{ '[TOOL_CALLS]' + c }}", ("[TOOL_CALLS]", "")),
        ("{{ '<|python_tag|>' + c }}", ("<|python_tag|>", "")),
        ("{# <tool_call></tool_call> #}", None),
        ("<tools></tools><tool_response></tool_response>", None),
    ],
)
def test_tool_call_markers(text: str, expected: tuple[str, str] | None):
    assert tool_call_markers(text) == expected


def test_templates_of_models():
    assert reasoning_markers(source("qwen3")) == THINK
    assert tool_call_markers(source("qwen3")) == ("<tool_call>", "</tool_call>")
    assert reasoning_markers(source("r1")) == THINK
    assert tool_call_markers(source("mistral")) == ("[TOOL_CALLS]", "")
    assert reasoning_markers(source("gemma")) is None


def test_harmony_closes_reasoning_with_the_header_of_the_answer():
    markers = reasoning_markers(source("harmony"))
    assert markers is not None
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hey", "thinking": "Greet."},
    ]
    template = ChatTemplate(source("harmony"), bos_token=None, eos_token=None)
    written = template.render(messages, add_generation_prompt=False)
    assert written.endswith(f"<|start|>assistant{markers[0]}Greet.{markers[1]}Hey<|return|>")


def test_of_the_builtin_templates_one_reasons():
    found = {name: reasoning_markers(builtin_source(name)) for name in BUILTIN_NAMES}
    assert {name: pair for name, pair in found.items() if pair} == {
        "memphis-rationale": ("### Rationale:", "### Answer:")
    }


@pytest.mark.parametrize(
    ("name", "expected"), [("qwen3", False), ("r1", True), ("gemma", False), ("memphis-rationale", True)]
)
def test_generation_prompts(name: str, expected: bool):
    text = builtin_source(name) if name in BUILTIN_NAMES else source(name)
    template = ChatTemplate(text, bos_token="<s>", eos_token="</s>")
    prompt = template.render([{"role": "user", "content": "What is <think>?"}])
    assert opens_reasoning(prompt, reasoning_markers(text)) is expected


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [
        ("<|Assistant|><think>\n", True),
        ("<|Assistant|><think>", True),
        ("<|Assistant|><think>\n\n</think>\n\n", False),
        ("What does <think> mean?<|Assistant|>", False),
        ("", False),
    ],
)
def test_opens_reasoning(prompt: str, opens: bool):
    assert opens_reasoning(prompt, THINK) is opens
    assert opens_reasoning(prompt, None) is False


@given(st.lists(st.sampled_from(["<think>", "</think>", "x", "\n", "<thin"])))
def test_inside_reasoning_is_what_reading_from_the_left_says(pieces: list[str]):
    inside = False
    for piece in pieces:
        inside = {"<think>": True, "</think>": False}.get(piece, inside)
    assert is_inside_reasoning("".join(pieces), THINK) is inside
