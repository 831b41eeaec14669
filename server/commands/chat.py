"""``tapster chat``: a conversation in the terminal, or one answer to what is piped in."""

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

from ...runtime.errors import ConfigError, ModelError, RequestError, TapsterError
from ..options import add_model_arguments, engine_config, find_profile
from ..terminal.commands import execute
from ..terminal.prompt import line_editing, read_message
from ..terminal.session import ChatSession

if TYPE_CHECKING:
    from ...runtime.runtime import Runtime
    from ...runtime.text.stream import TextStream

DIM, PLAIN = "\x1b[2m", "\x1b[0m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_model_arguments(parser)
    talk = parser.add_argument_group("conversation")
    talk.add_argument("--system", metavar="TEXT", help="the system prompt")
    talk.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a sampling setting, such as temperature=0; may be repeated",
    )
    talk.add_argument("--stats", action="store_true", help="show tokens, speed and context use after each answer")


def run(args: argparse.Namespace) -> int:
    """Talk until the user leaves. With input from a pipe: answer it and end."""
    from ...runtime.runtime import Runtime
    from ..logs import configure_logging

    configure_logging("warning")
    session = ChatSession(system=args.system, shows_stats=args.stats)
    for setting in args.set:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set takes NAME=VALUE, not {setting!r}")
        session.set(name, value)
    piped = None if sys.stdin.isatty() else _piped_question()
    profile = find_profile(args)
    runtime = Runtime.load(profile, engine_config(args, profile), engine=args.engine)
    try:
        if not runtime.has_chat_template:
            raise ModelError(f"{runtime.profile.name} has no chat template: choose one with --chat-template")
        with asyncio.Runner() as runner:
            chat = _Chat(runtime, session, runner)
            return chat.converse() if piped is None else chat.answer(piped)
    finally:
        runtime.close()


def _piped_question() -> str:
    """All of standard input, read before the model is loaded. ConfigError when it is empty or no text."""
    data = sys.stdin.buffer.read()
    try:
        question = data.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"standard input is not UTF-8: byte {error.start} is {data[error.start]:#04x}; convert it, as with iconv"
        ) from None
    if not question:
        raise ConfigError("there is nothing to answer: standard input is empty")
    return question


class _Chat:
    def __init__(self, runtime: "Runtime", session: ChatSession, runner: asyncio.Runner) -> None:
        self._runtime = runtime
        self._session = session
        self._runner = runner
        self._is_terminal = sys.stdout.isatty()

    def answer(self, question: str) -> int:
        self._ask(question)
        return 0

    def converse(self) -> int:
        sys.stdout.write(f"{self._runtime.profile.name}. /help lists the commands, Ctrl-D ends.\n")
        with line_editing():
            while True:
                try:
                    message = read_message(input)
                except EOFError:
                    sys.stdout.write("\n")
                    return 0
                except KeyboardInterrupt:
                    sys.stdout.write("\n")
                    continue
                if message and not self._handle(message):
                    return 0

    def _handle(self, message: str) -> bool:
        """Act on a message. False to end. What goes wrong with one message ends with a line, not the chat."""
        try:
            if not message.startswith("/"):
                self._ask(message)
                return True
            outcome = execute(message, self._session)
            if outcome.text:
                sys.stdout.write(outcome.text + "\n")
            if outcome.ask is not None:
                self._ask(outcome.ask)
            return not outcome.is_end
        except (ConfigError, RequestError) as error:
            sys.stdout.write(f"{error}\n")
            return True

    def _ask(self, question: str) -> None:
        """Answer a question; a question that cannot be answered is not remembered."""
        before = len(self._session.messages)
        self._session.messages.append({"role": "user", "content": question})
        try:
            self._runner.run(self._answer())
        except TapsterError:
            del self._session.messages[before:]
            raise
        except KeyboardInterrupt:
            sys.stdout.write(f"{PLAIN if self._is_terminal else ''}\n")
            if not self._session.messages[-1]["content"]:
                del self._session.messages[before:]
            if not sys.stdin.isatty():
                raise

    async def _answer(self) -> None:
        session = self._session
        params = self._runtime.default_params(**session.sampling())
        (stream,) = self._runtime.chat(session.prompt_messages(), params, stop=session.stops())
        content: list[str] = []
        is_dim = False
        try:
            async for delta in stream:
                if bool(delta.reasoning) != is_dim and (delta.reasoning or delta.content):
                    is_dim = bool(delta.reasoning)
                    self._dim(is_dim)
                sys.stdout.write(delta.reasoning + delta.content)
                sys.stdout.flush()
                content.append(delta.content)
        finally:
            stream.cancel()
            session.messages.append({"role": "assistant", "content": "".join(content)})
        self._dim(False) if is_dim else None
        sys.stdout.write("\n")
        if session.shows_stats:
            self._write_stats(stream)

    def _dim(self, on: bool) -> None:
        sys.stdout.write((DIM if on else PLAIN + "\n") if self._is_terminal else "" if on else "\n")

    def _write_stats(self, stream: "TextStream") -> None:
        usage, timing = stream.usage, stream.timing
        context = self._runtime.engine.capabilities.context_length
        used = usage.prompt_tokens + usage.completion_tokens
        decode_s = (timing.finished_s or 0) - (timing.first_token_s or 0)
        speed = (
            f"{(usage.completion_tokens - 1) / decode_s:.1f} tokens/s, "
            if usage.completion_tokens > 1 and decode_s
            else ""
        )
        line = (
            f"{usage.completion_tokens} tokens, {speed}first after {timing.ttft_s or 0:.2f} s "
            f"({usage.cached_tokens} of {usage.prompt_tokens} prompt tokens from the cache), "
            f"context {used} of {context}"
        )
        sys.stderr.write(f"{DIM}{line}{PLAIN}\n" if sys.stderr.isatty() else f"{line}\n")
