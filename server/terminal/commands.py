"""The /commands of the terminal chat."""

from collections.abc import Callable
from dataclasses import dataclass

from ...runtime.errors import ConfigError
from .session import ChatSession


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command leads to: something to show, a question to ask (again), or the end."""

    text: str = ""
    ask: str | None = None
    is_end: bool = False


def execute(line: str, session: ChatSession) -> Outcome:
    """Carry out a line that begins with a slash. ConfigError when it cannot be."""
    name, _, rest = line[1:].strip().partition(" ")
    entry = COMMANDS.get(name)
    if entry is None:
        raise ConfigError(f"there is no command /{name}: /help lists them")
    return entry[1](session, rest.strip())


def _help(session: ChatSession, rest: str) -> Outcome:
    rows = [f"  {usage}" for usage, _ in COMMANDS.values()]
    ending = '  End a line with \\ to go on, or put """ around several lines. Ctrl-C stops an answer, Ctrl-D ends.'
    return Outcome("\n".join([*rows, ending]))


def _reset(session: ChatSession, rest: str) -> Outcome:
    session.messages.clear()
    return Outcome("A new conversation.")


def _system(session: ChatSession, rest: str) -> Outcome:
    if rest:
        session.system = rest
    return Outcome(f"System prompt: {session.system or 'none'}")


def _set(session: ChatSession, rest: str) -> Outcome:
    if not rest:
        settings = ", ".join(f"{name} {value!r}" for name, value in session.settings.items())
        return Outcome(settings or "Everything is at the model's default.")
    name, _, value = rest.partition(" ")
    session.set(name, value.strip())
    return Outcome(f"{name}: {session.settings.get(name, 'default')}")


def _retry(session: ChatSession, rest: str) -> Outcome:
    question = session.undo()
    if question is None:
        raise ConfigError("there is nothing to answer again")
    return Outcome(ask=question)


def _undo(session: ChatSession, rest: str) -> Outcome:
    question = session.undo()
    return Outcome("Nothing to take back." if question is None else f"Took back: {question}")


def _stats(session: ChatSession, rest: str) -> Outcome:
    session.shows_stats = not session.shows_stats
    return Outcome(f"Statistics are {'on' if session.shows_stats else 'off'}.")


def _save(session: ChatSession, rest: str) -> Outcome:
    session.save(_path(rest))
    return Outcome(f"Saved to {rest}.")


def _load(session: ChatSession, rest: str) -> Outcome:
    session.load(_path(rest))
    return Outcome(f"{len(session.messages)} messages from {rest}.")


def _path(rest: str) -> str:
    if not rest:
        raise ConfigError("name a file")
    return rest


def _exit(session: ChatSession, rest: str) -> Outcome:
    return Outcome(is_end=True)


COMMANDS: dict[str, tuple[str, Callable[[ChatSession, str], Outcome]]] = {
    "help": ("/help              this list", _help),
    "reset": ("/reset             forget the conversation", _reset),
    "system": ("/system [TEXT]     show or set the system prompt", _system),
    "set": ("/set [NAME VALUE]  show or change temperature, top_p, top_k, min_p, max_tokens, seed, stop …", _set),
    "retry": ("/retry             answer the last question again", _retry),
    "undo": ("/undo              take back the last question and answer", _undo),
    "stats": ("/stats             show tokens, speed and context use after each answer, or stop that", _stats),
    "save": ("/save FILE         write the conversation as JSON", _save),
    "load": ("/load FILE         take up a saved conversation", _load),
    "exit": ("/exit              leave", _exit),
    "bye": ("/bye               leave", _exit),
}
