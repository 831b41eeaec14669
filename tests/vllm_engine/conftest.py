"""Engines on small servers of our own, and one real vLLM for all tests that need it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from fake_server import ByteTokenizer, FakeServer

from tapster.runtime.engines.vllm.address import parse_url
from tapster.runtime.engines.vllm.config import VllmConfig
from tapster.runtime.engines.vllm.engine import VllmEngine
from tapster.runtime.profile import ModelProfile, load_profile

QUICK = VllmConfig(vllm_connect_timeout_s=2, vllm_read_timeout_s=0.3, vllm_retries=1, api_key="secret")
"""Nobody waits a minute in a test."""

OpenEngine = Callable[..., VllmEngine]


@pytest.fixture
async def open_engine() -> AsyncIterator[OpenEngine]:
    """Opens an engine on servers and closes it at the end."""
    engines: list[VllmEngine] = []

    def open_it(*servers: FakeServer, **settings: Any) -> VllmEngine:
        addresses = parse_url("vllm://" + ",".join(server.url for server in servers))[0]
        config = replace(QUICK, addresses=addresses, **settings)
        engines.append(VllmEngine(cast(ModelProfile, None), config, tokenizer=ByteTokenizer()))
        return engines[-1]

    yield open_it
    for engine in engines:
        engine.close()


@pytest.fixture(scope="session")
def checkpoint(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model as a Hugging Face checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoint")
    command = [
        sys.executable,
        "-m",
        "tapster.server.cli",
        "convert",
        str(demo_model),
        "--to",
        "hf",
        "--out",
        str(folder),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(path.parent for path in folder.rglob("config.json"))


@pytest.fixture(scope="session")
def real_vllm(checkpoint: Path) -> Iterator[VllmEngine]:
    """vLLM started by tapster, once for all tests: it takes a minute or two."""
    python = os.environ.get("TAPSTER_VLLM_PYTHON")
    if not python:
        pytest.skip("TAPSTER_VLLM_PYTHON does not name an interpreter that has vLLM: make test-vllm sets it up")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        arguments = ("--enforce-eager", "--max-num-seqs", "16", "--max-logprobs", "5")
        config = VllmConfig(vllm_python=python, arguments=arguments, context=1024, vllm_start_timeout_s=1200)
        engine = VllmEngine(load_profile(checkpoint), config)
    yield engine
    engine.close()


@pytest.fixture
async def vllm(real_vllm: VllmEngine) -> AsyncIterator[VllmEngine]:
    """The same for one test: its connections end with the test's event loop."""
    yield real_vllm
    real_vllm.abort()
    real_vllm._servers.close()
    await asyncio.sleep(0.05)
