"""Reading what the user types: line editing, a history that lasts, several lines."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_HISTORY_LINES = 1000


@contextmanager
def line_editing() -> Iterator[None]:
    """Line editing with a history kept between runs, where the platform has readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    path = history_path()
    with suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        readline.set_history_length(_HISTORY_LINES)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)


def history_path() -> Path:
    """Where the history is kept: under XDG_STATE_HOME, readable by the user alone where the folder is."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "tapster" / "chat_history"


def read_message(read_line: Callable[[str], str]) -> str:
    """One message. A trailing backslash continues it, three quotes until the next three. EOFError at the end."""
    line = read_line("> ")
    if line.lstrip().startswith('"""'):
        return _until_quotes(line.lstrip()[3:], read_line)
    lines = []
    while line.endswith("\\"):
        lines.append(line[:-1])
        line = read_line(". ")
    return "\n".join([*lines, line]).strip()


def _until_quotes(first: str, read_line: Callable[[str], str]) -> str:
    lines = [first]
    while '"""' not in lines[-1]:
        lines.append(read_line(". "))
    lines[-1] = lines[-1].partition('"""')[0]
    return "\n".join(lines).strip()
