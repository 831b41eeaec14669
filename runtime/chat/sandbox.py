"""The Jinja that chat templates are written for, as Hugging Face transformers runs it.

An immutable sandbox (no private attributes, no changing of arguments), trimmed blocks, ``break`` and
``continue``, ``{% generation %}``, ``tojson`` without HTML escapes, ``raise_exception`` and ``strftime_now``;
and, beyond transformers, bounds on what a template may cost.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from . import bounds

Render = Callable[..., str]


class TemplateRefusal(TemplateError):
    """The template itself turned the messages down, with ``raise_exception``."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Hugging Face's sandbox, with the clock and the sizes looked at wherever Jinja lets one look."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  Jinja's names
        """They leave a template all names for its keyword arguments."""
        bounds.check_time()
        bounds.check_method(__obj, (*args, *kwargs.values()))
        return bounds.bounded(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The operator's result, unless it is enormous."""
        bounds.check_time()
        bounds.check_operands(operator, left, right)
        return bounds.bounded(super().call_binop(context, operator, left, right))


class _GenerationTag(Extension):
    """``{% generation %}`` tells trainers what the assistant wrote. Here it is its body, in its own scope."""

    tags = {"generation"}  # noqa: RUF012  as Jinja's base class has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _PublicNamespace(Namespace):
    """Jinja's ``namespace()`` without names that Python itself looks up."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *given = args
        Namespace.__init__(self)
        for name, value in dict(*given, **kwargs).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise TemplateError(f"a namespace takes no attribute {name!r}")
        super().__setitem__(name, value)


@lru_cache(maxsize=1)
def sandbox() -> Sandbox:
    """The environment that all templates share; it holds nothing of any of them."""
    env = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols])
    env.extend(check_time=bounds.check_time)
    env.filters.update(tojson=tojson, bounded=bounds.bounded)
    env.filters["format"] = bounds.narrow_format(env.filters["format"])
    for name in ("batch", "center", "indent", "slice", "wordwrap"):
        env.filters[name] = bounds.narrow(env.filters[name])
    env.globals.update(raise_exception=raise_exception, strftime_now=strftime_now)
    # The class ``dict`` itself would bring its methods along; ``lipsum`` writes as much as one asks for.
    env.globals.update(namespace=_PublicNamespace, dict=lambda *args, **kwargs: dict(*args, **kwargs))
    del env.globals["lipsum"]
    return env


def compile_bounded(source: str) -> tuple[nodes.Template, Render]:
    """The syntax tree of a template as it is written, and a function that renders it.

    The function takes the variables and, if it should be fewer than usual, the CPU seconds it may take.
    Both functions raise whatever Jinja and the template raise.
    """
    env = sandbox()
    code = env.compile(bounds.Bounds().visit(env.parse(source)))
    template = env.template_class.from_code(env, code, env.make_globals(None))

    def render(variables: Mapping[str, Any], seconds: float = bounds.RENDER_SECONDS) -> str:
        with bounds.time_limit(seconds):
            return bounds.bounded_prompt(template.generate(variables))

    return env.parse(source), render


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it for templates: no HTML escapes, letters beyond ASCII as they are."""
    bounds.check_widths([indent])
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message: object) -> NoReturn:
    """How a template says that it does not take these messages."""
    raise TemplateRefusal(str(message))


def strftime_now(pattern: str) -> str:
    """The local date and time, for templates that tell the model what day it is."""
    return datetime.now().strftime(pattern)
