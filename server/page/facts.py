"""What the page says about the model, from its profile."""

from collections.abc import Iterator
from html import escape

from ...runtime.profile import ModelProfile


def facts_html(profile: ModelProfile, context_length: int) -> str:
    """A definition list of the profile and, below, what is wrong with the model. Everything is escaped."""
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(profile, context_length)
    )
    problems = "".join(f"<li>{escape(problem)}</li>" for problem in profile.problems)
    return f'<dl class="tapster-facts">{rows}</dl>' + (
        f'<ul class="tapster-problems">{problems}</ul>' if problems else ""
    )


def _facts(profile: ModelProfile, context_length: int) -> Iterator[tuple[str, str]]:
    yield "name", profile.name
    yield "architecture", profile.architecture
    yield "parameters", scaled(profile.parameters, 1000, ("", " K", " M", " B", " T"))
    yield "quantisation", profile.file_type
    yield "size", scaled(profile.file_bytes, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))
    yield "context", _context(context_length, profile.context_length)
    if profile.end_of_turn:
        yield "end of turn", profile.end_of_turn.encode("unicode_escape").decode()


def _context(served: int, trained: int) -> str:
    return f"{served:,} tokens" if served == trained else f"{served:,} of {trained:,} tokens"


def scaled(number: int, base: int, units: tuple[str, ...]) -> str:
    """Three significant digits and the largest unit that leaves at least one before the point: ``135 M``."""
    value, power = float(number), 0
    while value >= base and power < len(units) - 1:
        value, power = value / base, power + 1
    return (f"{value:.3g}" if power and value < 999.5 else f"{value:.0f}") + units[power]
