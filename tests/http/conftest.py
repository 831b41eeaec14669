"""The servers that the tests of this folder share."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from live_server import Served, serving
from openai import OpenAI

from tapster.runtime.engines.llamacpp.config import LlamaCppConfig

# A template that shows tools and declares markers for calls and reasoning: the demo model's own knows none.
TOOL_TEMPLATE = """{%- if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}
Answer with <tool_call>{"name": name, "arguments": arguments}</tool_call>.
{% endif %}{%- for message in messages %}{% if message.content == "raise" %}
{{ raise_exception("no raising here") }}{% endif %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}{{ message.content }}
{%- if message.tool_calls %}{% for call in message.tool_calls %}<tool_call>{{ call.function | tojson }}</tool_call>
{%- endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@pytest.fixture(scope="session")
def served(demo_model: Path) -> Iterator[Served]:
    """The server."""
    with serving(demo_model) as served:
        yield served


@pytest.fixture(scope="session")
def client(served: Served) -> Iterator[OpenAI]:
    """The official client."""
    with OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def http(served: Served) -> Iterator[httpx.Client]:
    """A plain client."""
    with served.client() as client:
        yield client


@pytest.fixture(scope="session")
def tool_template(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a chat template that knows tools and reasoning."""
    path = tmp_path_factory.mktemp("templates") / "tools.jinja"
    path.write_text(TOOL_TEMPLATE)
    return str(path)


@pytest.fixture(scope="session")
def narrow(demo_model: Path, tool_template: str) -> Iterator[Served]:
    """A server that runs one sequence at a time and lets two wait; its template knows tools and reasoning."""
    with serving(demo_model, LlamaCppConfig(max_parallel=1, max_waiting=2), tool_template) as served:
        yield served


@pytest.fixture(scope="session")
def narrow_http(narrow: Served) -> Iterator[httpx.Client]:
    """A plain client of it."""
    with narrow.client() as client:
        yield client


@pytest.fixture
def own_server(demo_model: Path) -> Callable[[], AbstractContextManager[Served]]:
    """Makes a server that a test may break."""
    return lambda: serving(demo_model)
