"""The line under the chat, and the facts beside it."""

from dataclasses import replace
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException

from tapster.runtime.errors import EngineError
from tapster.runtime.profile import load_profile
from tapster.runtime.text.types import Timing
from tapster.server.page import status
from tapster.server.page.facts import facts_html, scaled
from tapster.server.page.status import Progress

TIMING = Timing(started_s=10.0, first_token_s=10.5, finished_s=12.5)
PROGRESS = Progress(prompt_tokens=900, num_tokens=101, context_length=2048, timing=TIMING)


def test_speed_counts_neither_the_prompt_nor_the_first_token() -> None:
    assert PROGRESS.speed(now_s=99) == 50.0
    assert replace(PROGRESS, timing=replace(TIMING, finished_s=None)).speed(now_s=14.5) == 25.0
    assert replace(PROGRESS, num_tokens=1).speed(now_s=99) is None
    assert replace(PROGRESS, timing=Timing(started_s=10.0)).speed(now_s=99) is None


def test_the_line_has_speed_first_token_context_and_why_it_ended() -> None:
    line = status.finished(PROGRESS, "stopped")
    assert "101 tokens · 50.0 tokens/s · first token 0.50 s · stopped" in line
    assert "context 1,001 / 2,048" in line
    assert "width: 48.9%" in line


def test_before_the_first_token_the_line_says_what_is_waited_for() -> None:
    assert "reading the prompt" in status.running(replace(PROGRESS, num_tokens=0, timing=Timing(started_s=10.0)))


@pytest.mark.parametrize("error", [EngineError("<b>no</b>"), HTTPException(503, "<b>no</b>")])
def test_an_error_is_text_whatever_it_says(error: EngineError | HTTPException) -> None:
    assert "&lt;b&gt;no&lt;/b&gt;" in status.failed(error)
    assert "503" not in status.failed(error)


def test_the_facts_are_the_profile_and_its_problems(demo_model: Path) -> None:
    profile = load_profile(demo_model)
    facts = facts_html(replace(profile, problems=("no <end>",)), 2048)
    assert profile.name in facts
    assert "<dd>135 M</dd>" in facts
    assert f"<dd>2,048 of {profile.context_length:,} tokens</dd>" in facts
    assert "&lt;|im_end|&gt;" in facts
    assert "<li>no &lt;end&gt;</li>" in facts


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1 K"), (134_515_008, "135 M"), (999_700, "1000 K"), (7_241_732_096, "7.24 B")],
)
def test_numbers_have_three_digits(number: int, text: str) -> None:
    assert scaled(number, 1000, ("", " K", " M", " B", " T")) == text
