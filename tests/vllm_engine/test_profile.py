"""The profile of a model behind an address: where its tokenizer comes from, and what the server says of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import FakeServer

from tapster.runtime.engines.vllm.engine import SAMPLE, VllmEngine
from tapster.runtime.engines.vllm.profile import RemoteProfile, remote_profile
from tapster.runtime.errors import ModelError
from tapster.runtime.profile import load_profile
from tapster.runtime.tokenizer.folder import open_tokenizer


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(context=777) as server:
        yield server


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small files of a model, without its weights."""
    folder = tmp_path_factory.mktemp("small") / "model"
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    return folder


def test_what_the_server_has_loaded_is_here(server: FakeServer, folder: Path) -> None:
    server.root = str(folder)
    profile = remote_profile(f"vllm://{server.url}")
    assert (profile.format, profile.name, profile.context_length, profile.path) == ("vllm", "m", 777, folder)
    assert profile.end_of_turn == "<|im_end|>"
    assert [str(address) for address in profile.addresses] == [f"http://{server.url}"]


def test_a_tokenizer_of_ones_own(server: FakeServer, folder: Path) -> None:
    assert remote_profile(f"vllm://{server.url}", tokenizer=str(folder)).path == folder


def test_an_adapter(server: FakeServer, folder: Path) -> None:
    server.root = str(folder)
    server.more_models.append({"id": "adapter", "root": "/adapters/1", "parent": "m", "max_model_len": None})
    profile = remote_profile(f"vllm://{server.url}#adapter")
    assert (profile.model_id, profile.path, profile.context_length) == ("adapter", folder, 777)
    with pytest.raises(ModelError, match="has no model other: it has m, adapter"):
        remote_profile(f"vllm://{server.url}#other")


def test_the_engine_finds_its_servers_in_the_profile(server: FakeServer, folder: Path) -> None:
    server.root = str(folder)
    profile = remote_profile(f"vllm://{server.url}")
    assert isinstance(profile, RemoteProfile)
    server.tokens = open_tokenizer(load_profile(folder)).encode(SAMPLE)
    engine = VllmEngine(profile)
    assert engine.capabilities.context_length == 777
    engine.close()


def test_nobody_says_where_the_tokenizer_is(server: FakeServer) -> None:
    server.root = None
    with pytest.raises(ModelError, match="does not say where m was loaded from: give --tokenizer"):
        remote_profile(f"vllm://{server.url}")


def test_it_was_loaded_elsewhere(server: FakeServer) -> None:
    server.root = "/on/another/machine"
    with pytest.raises(ModelError, match="/on/another/machine, which is not on this machine: give --tokenizer"):
        remote_profile(f"vllm://{server.url}")


def test_a_tokenizer_that_is_not_there(server: FakeServer) -> None:
    with pytest.raises(ModelError, match=r"--tokenizer \./nothing: no such folder"):
        remote_profile(f"vllm://{server.url}", tokenizer="./nothing")


def test_no_vllm(server: FakeServer) -> None:
    server.models = {"data": [{"id": "gpt", "object": "model"}]}
    with pytest.raises(ModelError, match=r"is no vLLM: .*/v1/models lists no models with a max_model_len"):
        remote_profile(f"vllm://{server.url}")
