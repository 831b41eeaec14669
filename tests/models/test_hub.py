"""Models from the Hub: the real client, in a process of its own, against a small server that speaks the Hub's HTTP."""

import json
import os
import pty
import re
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEXT_COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
CONTENT = bytes(range(256)) * 400
ASK = """
import json, sys
from tapster.runtime.errors import ModelError
from tapster.runtime.hub import fetch_checkpoint, fetch_small_files
from tapster.runtime.resolve import resolve_model
def ask(spec):
    try:
        if spec.startswith("checkpoint "):
            return str(fetch_checkpoint(spec.removeprefix("checkpoint "), progress=False))
        if spec.startswith("small "):
            return str(fetch_small_files(spec.removeprefix("small "), progress=False))
        return str(resolve_model(spec, progress=sys.argv[1] == "progress"))
    except ModelError as error:
        return f"ModelError: {error}"
print(json.dumps([ask(spec) for spec in sys.argv[2:]]))
"""


class Hub(ThreadingHTTPServer):
    """Repositories as lists of file names; every file has the same content but for its name in front."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.commit = COMMIT
        self.content = CONTENT
        self.repos: dict[str, list[str]] = {}
        self.gated: set[str] = set()
        self.refused: dict[str, tuple[int, str]] = {}
        self.refused_files = 0
        self.interruptions = 0
        self.requests: list[str] = []


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        assert isinstance(self.server, Hub)
        return self.server

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name that the base class has
        pass

    def _answer(self, *, with_body: bool) -> None:
        self.hub.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)", self.path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", self.path)
        repo = (listing or file or [None, ""])[1]
        if repo in self.hub.refused:
            self._refuse(*self.hub.refused[repo])
        elif repo not in self.hub.repos:
            self._refuse(404, "RepoNotFound")
        elif file and repo in self.hub.gated:
            self._refuse(403, "GatedRepo")
        elif file and self.hub.refused_files:
            self._refuse(self.hub.refused_files, "")
        elif file:
            self._send_file(file[2], file[3], with_body)
        else:
            files = [{"rfilename": name} for name in self.hub.repos[repo]]
            body = json.dumps({"id": repo, "sha": self.hub.commit, "siblings": files}).encode()
            self._send(200, body, {"Content-Type": "application/json"}, with_body)

    def _send_file(self, revision: str, name: str, with_body: bool) -> None:
        assert revision == self.hub.commit, "not the commit of the listing"
        content = name.encode() + self.hub.content
        etag = f"{revision[:4]}{name.encode().hex()}"
        headers = {"X-Repo-Commit": revision, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(206, content[start:], headers, with_body)
        else:
            self._send(200, content, headers, with_body)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code} if code else {}, with_body=True)

    def _send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body and body.endswith(self.hub.content) and self.hub.interruptions:
            self.hub.interruptions -= 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
        elif with_body:
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


class Client:
    """Runs the resolver in a fresh process, because the Hub's client reads its settings when imported."""

    def __init__(self, home: Path, url: str) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        self._home = home
        self._environment = {**kept, "HF_HOME": str(home / "hf"), "HF_ENDPOINT": url, "NO_PROXY": "127.0.0.1"}

    def command(self, *specs: str, progress: bool = True) -> list[str]:
        return [sys.executable, "-c", ASK, "progress" if progress else "quiet", *specs]

    def environment(self, **more: str) -> dict[str, str]:
        return {**self._environment, **more}

    def resolve(self, *specs: str, **environment: str) -> list[str]:
        """The path or the refusal of each, and nothing on standard error that is no warning of the client."""
        done = subprocess.run(
            self.command(*specs), env=self.environment(**environment), cwd=self._home,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert "%|" not in done.stderr
        return json.loads(done.stdout)

    def resolve_on_terminal(self, *specs: str, progress: bool) -> str:
        """What standard error shows when it is a terminal."""
        controller, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (24, 100))
        with subprocess.Popen(
            self.command(*specs, progress=progress), env=self.environment(TERM="xterm"), cwd=self._home,
            stdout=subprocess.DEVNULL, stderr=terminal,
        ) as process:  # fmt: skip
            os.close(terminal)
            shown = b"".join(iter(lambda: _read(controller), b""))
            assert process.wait(60) == 0
        os.close(controller)
        return shown.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux: the other end is closed
        return b""


@pytest.fixture
def client(tmp_path: Path, hub: Hub) -> Client:
    return Client(tmp_path, hub.url)


def content_of(path: str) -> bytes:
    return Path(path).read_bytes()


def unfetched(repo: str) -> str:
    """How the refusal of a name begins that may be a folder's, mistyped."""
    return f"no such file or folder: {repo}; read as a name on the Hub it cannot be fetched"


def test_choice_among_quantizations_and_the_cache(client: Client, hub: Hub) -> None:
    hub.repos = {
        "org/many": ["README.md", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q4_0.gguf", "mmproj-F16.gguf"],
        "org/one": ["m.gguf"],
        "org/other": ["m-Q2_K.gguf", "m-Q3_K_S.gguf"],
        "org/none": ["tokenizer.json", "mmproj-F16.gguf.txt"],
    }
    default, chosen, one, several, none, unknown = client.resolve(
        "org/many", "org/many:q8_0", "org/one", "org/other", "org/none", "org/many:Q5_0"
    )
    assert default.endswith(f"models--org--many/snapshots/{COMMIT}/m-Q4_K_M.gguf")
    assert content_of(default) == b"m-Q4_K_M.gguf" + CONTENT
    assert chosen.endswith("m-Q8_0.gguf")
    assert one.endswith("m.gguf")
    assert several == "ModelError: org/other has several GGUF models: Q2_K, Q3_K_S; name one, as in org/other:Q2_K"
    assert none == "ModelError: org/none has no model that can be run: it has no config.json"
    assert unknown.startswith("ModelError: org/many has no GGUF model named 'Q5_0', but Q4_0, Q4_K_M, Q8_0; name one")

    hub.requests.clear()
    assert client.resolve("org/many") == [default]
    assert [request for request in hub.requests if "agent" not in request] == ["GET /api/models/org/many"]


def test_a_model_in_parts(client: Client, hub: Hub) -> None:
    parts = [f"Q4_K_M/m-Q4_K_M-0000{number}-of-00002.gguf" for number in (1, 2)]
    hub.repos = {"org/big": parts, "org/torn": parts[:1]}
    first, torn = client.resolve("org/big", "org/torn")
    assert first.endswith(f"/snapshots/{COMMIT}/{parts[0]}")
    assert content_of(first.replace("00001-of", "00002-of")) == parts[1].encode() + CONTENT
    assert torn == f"ModelError: the model {parts[0]} in org/torn is incomplete: {parts[1]} is missing"


def test_a_checkpoint_is_fetched_without_what_can_run_code(client: Client, hub: Hub) -> None:
    parts = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    settings = ["config.json", "tokenizer.json", "additional_chat_templates/rag.jinja"]
    others = ["pytorch_model.bin", "modeling_x.py", "original/model.safetensors", "consolidated.safetensors", "x.gguf"]
    hub.repos = {
        "org/parts": [*settings, *parts, "model.safetensors.index.json", *others],
        "org/single": [*others, "config.json", "model.safetensors"],
        "org/torn": ["config.json", parts[1]],
        "org/pickles": ["config.json", "pytorch_model.bin"],
        "org/ggufs": ["x.gguf"],
    }
    folder, single, torn, pickles, ggufs = client.resolve(*(f"checkpoint {repo}" for repo in hub.repos))
    fetched = {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}
    assert fetched == {*settings, *parts, "model.safetensors.index.json"}
    assert folder.endswith(f"models--org--parts/snapshots/{COMMIT}")
    assert {path.name for path in Path(single).iterdir()} == {"config.json", "model.safetensors"}
    assert torn == f"ModelError: the checkpoint in org/torn is incomplete: {parts[0]} is missing"
    assert pickles.startswith("ModelError: org/pickles has no checkpoint: its weights are pickles")
    assert ggufs == "ModelError: org/ggufs has no checkpoint: it holds GGUF files"


def test_without_gguf_the_folder_is_fetched_without_what_can_run_code(client: Client, hub: Hub) -> None:
    settings = ["config.json", "tokenizer.json", "chat_template.jinja"]
    others = ["arcee.py", "pytorch_model.bin", "x.pkl", "onnx/model.onnx"]
    graph = ["genai_config.json", "model.onnx", "model.onnx.data"]
    hub.repos = {
        "org/checkpoint": [*settings, "model.safetensors", *others],
        "org/graph": [*settings, *graph, "model.safetensors", *others],
        "org/both": [*settings, "model.safetensors", "m-Q4_0.gguf"],
        "org/deep": ["config.json", "onnx/model.onnx", "onnx/model_q4.onnx"],
        "org/pickles": ["config.json", "pytorch_model.bin"],
        "org/quant": [*settings, "model.safetensors"],
    }
    checkpoint, onnx, both, deep, pickles, quant = client.resolve(*list(hub.repos)[:-1], "org/quant:Q4_0")
    assert checkpoint.endswith(f"models--org--checkpoint/snapshots/{COMMIT}")
    assert {path.name for path in Path(checkpoint).iterdir()} == {*settings, "model.safetensors"}
    assert {path.name for path in Path(onnx).iterdir()} == {*settings, *graph}
    assert both.endswith("m-Q4_0.gguf")
    expected = "its ONNX files lie in folders of it (onnx); put one beside its config.json"
    assert deep == f"ModelError: org/deep has no model that can be run: {expected}"
    assert pickles.startswith("ModelError: org/pickles has no model that can be run: its weights are pickles")
    assert quant == "ModelError: org/quant has no GGUF model"
    offline = client.resolve("org/checkpoint", "org/graph", "org/both", HF_HUB_OFFLINE="1")
    assert offline == [checkpoint, onnx, both]


def test_the_small_files_are_no_model_of_their_own(client: Client, hub: Hub) -> None:
    hub.repos = {"org/name": ["config.json", "tokenizer.json", "model.safetensors", "x.py"], "org/none": ["x.gguf"]}
    small, none = client.resolve("small org/name", "small org/none")
    assert {path.name for path in Path(small).iterdir()} == {"config.json", "tokenizer.json"}
    assert none == "ModelError: org/none has no config.json, which says what the model is"
    again, whole = client.resolve("small org/name", "org/name", HF_HUB_OFFLINE="1")
    assert again == small
    assert whole.endswith("and in the cache org/name has no complete model")


def test_without_a_network_the_newest_whole_checkpoint_serves(client: Client, hub: Hub) -> None:
    hub.repos = {"org/name": ["config.json", "model.safetensors"]}
    (old,) = client.resolve("checkpoint org/name")
    hub.commit = NEXT_COMMIT
    (new,) = client.resolve("checkpoint org/name")
    assert client.resolve("checkpoint org/name", HF_HUB_OFFLINE="1") == [new]
    Path(new, "model.safetensors").unlink()
    kept, refusal = client.resolve("checkpoint org/name", "checkpoint org/other", HF_HUB_OFFLINE="1")
    assert kept == old
    assert refusal.endswith("and in the cache org/other has no complete model")


def test_refusals(client: Client, hub: Hub) -> None:
    hub.repos = {"org/gated": ["m.gguf"]}
    hub.gated = {"org/gated"}
    hub.refused = {"org/private": (401, "RepoNotFound"), "org/forbidden": (403, "")}
    absent, private, forbidden, gated, impossible = client.resolve(
        "org/absent", "org/private", "org/forbidden", "org/gated", "org/na--me"
    )
    neither = "is neither a file or folder here nor on the Hub (if it is private: `hf auth login`)"
    assert absent == f"ModelError: org/absent {neither}"
    assert private == f"ModelError: org/private {neither}"
    assert forbidden.startswith("ModelError: the Hub refuses access to org/forbidden: log in with `hf auth login`")
    assert gated.startswith("ModelError: org/gated is gated: accept its terms on its page on the Hub, then log in")
    assert impossible == "ModelError: org/na--me is neither a file or folder here nor a possible name on the Hub"


def test_an_interrupted_download_goes_on(client: Client, hub: Hub) -> None:
    hub.repos = {"org/name": ["m.gguf"]}
    hub.content = bytes(30_000_000)  # the client keeps what it has in steps of 10 MB
    hub.interruptions = 1
    (path,) = client.resolve("org/name")
    assert content_of(path) == b"m.gguf" + hub.content
    assert re.fullmatch(rf"GET /org/name/resolve/{COMMIT}/m.gguf bytes=\d{{8}}-", hub.requests[-1])


def test_a_download_that_fails_can_be_tried_again(client: Client, hub: Hub) -> None:
    hub.repos = {"org/name": ["m.gguf"]}
    hub.refused_files = 404
    (refusal,) = client.resolve("org/name")
    assert refusal.startswith(f"ModelError: {unfetched('org/name')} (")
    assert refusal.endswith("and in the cache org/name has no complete model")
    hub.refused_files = 0
    (path,) = client.resolve("org/name")
    assert content_of(path) == b"m.gguf" + CONTENT


def test_without_a_network_the_cached_copy_serves(client: Client, hub: Hub) -> None:
    hub.repos = {"org/name": ["m-Q4_0.gguf", "m-Q8_0.gguf", "p-Q6_K-00001-of-00002.gguf", "p-Q6_K-00002-of-00002.gguf"]}
    old, parts = client.resolve("org/name:Q4_0", "org/name:Q6_K")
    hub.commit = NEXT_COMMIT
    (new,) = client.resolve("org/name:Q4_0")
    assert (COMMIT in old, NEXT_COMMIT in new) == (True, True)
    Path(parts.replace("00001-of", "00002-of")).unlink()

    hub.refused = {"org/name": (503, "")}
    specs = ("org/name", "org/name:Q4_0", "org/name:Q8_0", "org/name:Q6_K", "org/unknown")
    offline = client.resolve(*specs, HF_HUB_OFFLINE="1")
    assert offline[:2] == [new, new]
    name, unknown = (f"ModelError: {unfetched(repo)} (HF_HUB_OFFLINE is set)" for repo in ("org/name", "org/unknown"))
    assert offline[2].startswith(f"{name}, and in the cache org/name has no GGUF model named 'Q8_0', but Q4_0")
    assert offline[3].startswith(f"{name}, and in the cache org/name has no GGUF model named 'Q6_K', but Q4_0")
    assert offline[4] == f"{unknown}, and in the cache org/unknown has no complete model"
    assert client.resolve("org/name") == [new]

    hub.shutdown()
    hub.server_close()
    unreachable = client.resolve("org/name", "org/unknown")
    assert unreachable[0] == new
    assert unreachable[1].startswith(f"ModelError: {unfetched('org/unknown')} (")
    assert unreachable[1].endswith("and in the cache org/unknown has no complete model")


def test_an_empty_cache_without_a_network(client: Client) -> None:
    (refusal,) = client.resolve("org/name", HF_HUB_OFFLINE="1")
    assert refusal.endswith("(HF_HUB_OFFLINE is set), and in the cache org/name has no complete model")


def test_the_progress_bar_is_for_terminals_and_can_be_switched_off(client: Client, hub: Hub) -> None:
    hub.repos = {"org/shown": ["m.gguf"], "org/quiet": ["m.gguf"]}
    assert "m.gguf: 100%" in client.resolve_on_terminal("org/shown", progress=True)
    assert "%" not in client.resolve_on_terminal("org/quiet", progress=False)
