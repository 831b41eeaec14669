"""The conformance suite: what every engine, and every server, has to do in the same way.

With ``--url`` it asks a running server; without, it serves the same model with each of tapster's engines in turn.
"""

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from answers import Answers
from black_box import Api, Refused
from served import serving
from targets import TARGETS, Target

# Pytest reads this hook at the start when the folder is named on the command line. In a run of all tests it comes too
# late for the parser, hence the defaults in _option.
DEFAULT_TOKENS = 32
SLOW_TOKENS = 16


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--url", help="test the OpenAI-compatible server at this URL")
    group.addoption("--model", help="the model to ask it for (default: the first in /v1/models)")
    group.addoption("--api-key", help="the key that it asks for (also OPENAI_API_KEY)")
    group.addoption("--tokens", type=int, help=f"length of the answers to choose stops from ({DEFAULT_TOKENS})")
    group.addoption("--engine", action="append", help="without --url: only this engine; may be repeated")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "stops: only standard fields of the API: for any OpenAI-compatible server")
    config.addinivalue_line("markers", "precision: asks every artifact of an engine, not only the first")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One server at a time: pytest groups the tests by the parameter of a session's fixture."""
    if "server" not in metafunc.fixturenames:
        return
    url, engines = _option(metafunc.config, "url"), _option(metafunc.config, "engine")
    if url:
        targets = [Target("url", "url", url=url)]
    else:
        every = metafunc.definition.get_closest_marker("precision") is not None
        targets = [one for one in TARGETS if (every or one.is_first) and (not engines or one.engine in engines)]
        if not engines and metafunc.definition.get_closest_marker("stops") is None:
            targets = [one for one in targets if every or not one.is_slow]
    metafunc.parametrize("server", targets, ids=[one.name for one in targets], indirect=True, scope="session")


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[Api]:
    """A client of the server."""
    target: Target = request.param
    key = _option(request.config, "api_key") or os.environ.get("OPENAI_API_KEY")
    if target.url:
        try:
            api = Api(target.url, _option(request.config, "model"), key)
        except (httpx.HTTPError, Refused) as error:
            pytest.exit(f"{target.url}/v1/models does not answer as it should: {error}", returncode=2)
        with api:
            yield api
        return
    with serving(target.model(), *target.options()) as url, Api(url) as api:
        api.is_slow = target.is_slow
        yield api


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Target:
    """What the server serves."""
    return request.node.callspec.params["server"]


@pytest.fixture(scope="session")
def answers(server: Api, request: pytest.FixtureRequest) -> Answers:
    """The server's greedy answers."""
    usual = SLOW_TOKENS if server.is_slow else DEFAULT_TOKENS
    return Answers(server, _option(request.config, "tokens") or usual)


def _option(config: pytest.Config, name: str) -> Any:
    return config.getoption(name, default=None)
