"""What the page looks like and which handler each part calls."""

from collections.abc import Callable
from html import escape
from importlib.resources import files
from typing import Any

import gradio as gr
from gradio.themes import Default

from ...runtime.runtime import Runtime
from ...runtime.sampling import SamplingParams
from . import status
from .chat import Chat
from .facts import facts_html
from .settings import SAMPLING_FIELDS, field_text

BLANK = {"max_tokens": "no limit", "seed": "random"}
"""What a blank field means, where that is not a number."""

OPEN_IF_WIDE = "() => ({ open: window.innerWidth > 900, __type__: 'update' })"
"""The side bar would cover the chat on a telephone."""

LATEX = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
]


def build_blocks(get_runtime: Callable[[], Runtime]) -> gr.Blocks:
    """The page for one model. Its events are no public API: programs use `/v1`."""
    runtime = get_runtime()
    context_length = runtime.engine.capabilities.context_length
    title = f"{runtime.profile.name} · tapster"
    with gr.Blocks(title=title, analytics_enabled=False, fill_height=True) as blocks:
        with gr.Sidebar(open=False, width=320) as sidebar:
            settings = _settings(runtime.default_params())
            gr.HTML(facts_html(runtime.profile, context_length), elem_id="facts")
        chat = _chat(runtime.profile.name)
        message = _message_box()
        line = gr.HTML(status.READY, elem_id="status", apply_default_css=False)
        _connect(Chat(get_runtime), chat, message, line, settings)
        blocks.load(None, None, sidebar, js=OPEN_IF_WIDE)
    blocks.queue(default_concurrency_limit=None, api_open=False)
    return blocks


def theme() -> Default:
    """Gradio's theme in the fonts that the system has: nothing is fetched."""
    return Default(
        primary_hue="amber",
        neutral_hue="stone",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def css() -> str:
    """The page's own style sheet."""
    return files(__package__ or "").joinpath("style.css").read_text("utf-8")


def _chat(name: str) -> gr.Chatbot:
    return gr.Chatbot(
        show_label=False,
        container=False,
        height="0",
        editable="user",
        buttons=["copy"],
        layout="bubble",
        latex_delimiters=LATEX,
        placeholder=f"## {escape(name)}\nSay something.",
        elem_id="chat",
    )


def _message_box() -> gr.Textbox:
    return gr.Textbox(
        show_label=False,
        container=False,
        placeholder="Message",
        max_lines=8,
        autofocus=True,
        submit_btn=True,
        elem_id="message",
    )


def _settings(defaults: SamplingParams) -> list[gr.Textbox]:
    """The fields of ``Settings``, in order. Numbers are text: Gradio's number fields cannot be blank."""
    system = gr.Textbox(label="System prompt", lines=3, max_lines=12, elem_id="system")
    with gr.Row(elem_id="sampling"):
        numbers = [_number(name, defaults) for name in SAMPLING_FIELDS]
    stop = gr.Textbox(label="Stop strings", placeholder="one a line", lines=2, elem_id="stop")
    return [system, *numbers, stop]


def _number(name: str, defaults: SamplingParams) -> gr.Textbox:
    label = name.replace("_", " ").capitalize()
    return gr.Textbox(
        field_text(defaults, name),
        label=label,
        placeholder=BLANK.get(name, "default"),
        min_width=100,
        elem_id=name,
    )


def _connect(handlers: Chat, chat: gr.Chatbot, message: gr.Textbox, line: gr.HTML, settings: list[Any]) -> None:
    outputs = [chat, message, line]
    common: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    message.submit(handlers.send, [message, chat, *settings], outputs, **common)
    chat.retry(handlers.retry, [chat, *settings], outputs, **common)
    chat.edit(handlers.edit, [chat, *settings], outputs, **common)
    chat.undo(handlers.undo, chat, outputs, queue=False, **common)
    chat.clear(handlers.clear, None, [message, line], queue=False, **common)
    message.stop(handlers.stop, None, None, queue=False, **common)
