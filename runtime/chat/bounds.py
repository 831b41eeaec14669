"""What a chat template may cost. A template comes with a model, so it is a stranger's program.

    time      CPU seconds of the rendering thread, looked at in every turn of a loop, call and operator
    size      of every text or list that ``+``, ``*``, ``~`` and calls make, and of the whole prompt
    width     that methods, filters and formats pad to

Not covered: one step that multiplies what is still within the limit (``|join`` and ``|replace`` of two long
texts), and the time that such a step takes.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.visitor import NodeTransformer

RENDER_SECONDS = 3.0
PROMPT_CHARS = 32_000_000
VALUE_ITEMS = 8_000_000
NUMBER_BITS = 4_096
WIDTH = 10_000

_PADDING_METHODS = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill"})
_WIDE_PERCENT = re.compile(r"%[^a-zA-Z%]*(\*|\d{5})")
_WIDE_BRACES = re.compile(r":[^{}]*(\d{5}|\{)")

_deadline: ContextVar[float] = ContextVar("render_deadline", default=float("inf"))


class TemplateTooCostly(TemplateError):
    """Rendering ran into one of the bounds of this module."""


class Bounds(NodeTransformer):
    """Puts a look at the clock into every loop of a syntax tree, and a size check around every ``~``.

    The environment that compiles the tree has ``check_time`` as an attribute and ``bounded`` as a filter.
    """

    def visit_For(self, node: nodes.For, *args: Any, **kwargs: Any) -> nodes.Node:  # noqa: N802  Jinja's name
        self.generic_visit(node)
        clock = nodes.Call(nodes.EnvironmentAttribute("check_time"), [], [], None, None)
        node.body.insert(0, nodes.ExprStmt(clock).set_lineno(node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat, *args: Any, **kwargs: Any) -> nodes.Node:  # noqa: N802  Jinja's name
        self.generic_visit(node)
        return nodes.Filter(node, "bounded", [], [], None, None).set_lineno(node.lineno)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Lets ``check_time`` raise after this many CPU seconds of the thread."""
    token = _deadline.set(time.thread_time() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def check_time() -> None:
    """Raises once the render that runs in this context has had its CPU seconds."""
    if time.thread_time() > _deadline.get():
        raise TemplateTooCostly("it takes too long")


def bounded(value: Any) -> Any:
    """The value itself, if it is no text or list beyond the limit."""
    if isinstance(value, str | list | tuple | dict) and len(value) > VALUE_ITEMS:
        raise TemplateTooCostly(f"it makes a {type(value).__name__} of more than {VALUE_ITEMS:,} items")
    return value


def bounded_prompt(pieces: Iterable[str]) -> str:
    """The pieces as one text; raises as soon as they are too long together."""
    kept, size = [], 0
    for piece in pieces:
        size += len(piece)
        if size > PROMPT_CHARS:
            raise TemplateTooCostly(f"it writes more than {PROMPT_CHARS:,} characters")
        kept.append(piece)
    return "".join(kept)


def check_operands(operator: str, left: Any, right: Any) -> None:
    """Refuses a result that would be enormous, before it is computed."""
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        is_enormous = bits > NUMBER_BITS
    elif operator == "*":
        count, repeated = (left, right) if isinstance(left, int) else (right, left)
        is_repeat = isinstance(count, int) and isinstance(repeated, str | list | tuple)
        is_enormous = is_repeat and count * len(repeated) > VALUE_ITEMS
    else:
        is_enormous = operator == "%" and isinstance(left, str) and _WIDE_PERCENT.search(left)
    if is_enormous:
        raise TemplateTooCostly(f"its operator {operator} makes something enormous")


def check_method(method: Any, args: Iterable[Any]) -> None:
    """Refuses a text method that pads to an enormous width.

    Jinja wraps ``format`` to sandbox it; the method itself is underneath.
    """
    inner = getattr(method, "__wrapped__", method)
    text, name = getattr(inner, "__self__", None), getattr(inner, "__name__", "")
    if not isinstance(text, str):
        return
    if name in _PADDING_METHODS:
        check_widths(args)
    elif name in ("format", "format_map") and _WIDE_BRACES.search(text):
        raise TemplateTooCostly("it formats to a width that is large or unknown")


def check_widths(widths: Iterable[Any]) -> None:
    """Refuses a width that is enormous."""
    if any(isinstance(width, int) and width > WIDTH for width in widths):
        raise TemplateTooCostly(f"it pads to a width of more than {WIDTH:,}")


def narrow(pad: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pads, with its widths checked first."""

    @wraps(pad)
    def checked(*args: Any, **kwargs: Any) -> Any:
        check_widths((*args, *kwargs.values()))
        return pad(*args, **kwargs)

    return checked


def narrow_format(percent: Callable[..., Any]) -> Callable[..., Any]:
    """The filter ``format``, checked like the operator ``%``."""

    @wraps(percent)
    def checked(value: Any, *args: Any, **kwargs: Any) -> Any:
        check_operands("%", value, args)
        return percent(value, *args, **kwargs)

    return checked
