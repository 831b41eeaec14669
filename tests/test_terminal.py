"""The terminal chat: its commands, its lines, and a conversation through a pipe and a pseudo-terminal."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tapster.runtime.errors import ConfigError
from tapster.server.terminal.commands import COMMANDS, execute
from tapster.server.terminal.prompt import read_message
from tapster.server.terminal.session import ChatSession

CHAT = [sys.executable, "-m", "tapster.server.cli", "chat"]


def talked() -> ChatSession:
    return ChatSession(messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}])


def typed(*lines: str) -> str:
    rest = iter(lines)
    return read_message(lambda prompt: next(rest))


def test_lines_and_blocks() -> None:
    assert typed("one") == "one"
    assert typed("one\\", "two") == "one\ntwo"
    assert typed('"""one', "  two", 'three"""') == "one\n  two\nthree"
    assert typed('"""one"""') == "one"


def test_help_lists_every_command() -> None:
    text = execute("/help", ChatSession()).text
    assert all(f"/{name}" in text for name in COMMANDS)


def test_retry_and_undo_take_the_last_answer_back() -> None:
    session = talked()
    assert execute("/retry", session).ask == "Hi"
    assert session.messages == []
    with pytest.raises(ConfigError, match="nothing to answer"):
        execute("/retry", session)
    session = talked()
    assert "Hi" in execute("/undo", session).text
    assert session.messages == []


def test_settings_are_checked() -> None:
    session = ChatSession()
    execute("/set temperature 0.5", session)
    execute("/set stop é\\n\\n", session)
    assert session.sampling() == {"temperature": 0.5}
    assert session.stops() == ["é\n\n"]
    execute("/set temperature", session)
    assert session.sampling() == {}
    for line in (
        "/set temperature hot",
        "/set temperature -1",
        "/set colour red",
        "/nonsense",
        "/save",
        "/load /no/file",
    ):
        with pytest.raises(ConfigError):
            execute(line, session)


def test_a_conversation_survives_save_and_load(tmp_path: Path) -> None:
    session = talked()
    session.system = "Be brief."
    execute(f"/save {tmp_path / 'talk.json'}", session)
    other = ChatSession()
    execute(f"/load {tmp_path / 'talk.json'}", other)
    assert other.prompt_messages() == session.prompt_messages()
    (tmp_path / "wrong.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(ConfigError, match="not a list of messages"):
        execute(f"/load {tmp_path / 'wrong.json'}", other)


def test_a_pipe_is_answered(demo_model: Path) -> None:
    done = subprocess.run(
        [*CHAT, str(demo_model), "--set", "temperature=0", "--set", "max_tokens=8", "--stats"],
        input="What is the capital of Japan?",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Tokyo" in done.stdout
    assert "tokens/s" in done.stderr


@pytest.mark.parametrize(
    ("piped", "complaint"),
    [(b" \n", "there is nothing to answer: standard input is empty"), (b"a\xff", "not UTF-8: byte 1 is 0xff")],
)
def test_a_pipe_without_text_is_refused_before_the_model_is_looked_for(piped: bytes, complaint: str) -> None:
    done = subprocess.run([*CHAT, "/no/such/model.gguf"], input=piped, capture_output=True, timeout=60)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert complaint in line


def test_a_model_without_a_template_is_refused(tiny_model: Path) -> None:
    done = subprocess.run([*CHAT, str(tiny_model)], input="Hi", capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--chat-template" in done.stderr


def test_a_conversation_at_a_terminal(demo_model: Path, tmp_path: Path) -> None:
    """Typed on a pseudo-terminal: an answer, a command, Ctrl-C during an answer, and Ctrl-D."""
    main, child = pty.openpty()
    process = subprocess.Popen(
        [*CHAT, str(demo_model), "--set", "temperature=0"],
        stdin=child,
        stdout=child,
        stderr=child,
        close_fds=True,
        start_new_session=True,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "dumb"},
        preexec_fn=_take_terminal,
    )
    os.close(child)
    try:
        _read_until(main, "> ")
        os.write(main, b"What is the capital of Japan?\n")
        assert "Tokyo" in _read_until(main, "\r\n> ")
        os.write(main, b"/nonsense\n")
        assert "there is no command /nonsense" in _read_until(main, "\r\n> ")
        os.write(main, b"Write a very long story about the sea.\n")
        _read_until(main, "sea.\r\n")
        _read_until(main, " ")
        os.write(main, b"\x03")
        assert "Traceback" not in _read_until(main, "> ")
        os.write(main, b"\x04")
        assert process.wait(60) == 0
        assert "capital of Japan" in (tmp_path / "tapster/chat_history").read_text()
    finally:
        process.kill()
        process.wait()
        os.close(main)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _read_until(terminal: int, text: str, limit_s: float = 90) -> str:
    seen = ""
    end = time.monotonic() + limit_s
    while text not in seen:
        left = end - time.monotonic()
        assert left > 0, f"{text!r} never came, but {seen!r}"
        if select.select([terminal], [], [], left)[0]:
            seen += os.read(terminal, 4096).decode(errors="replace")
    return seen
