"""The shape of the house: what is packaged, who may import whom, what stays light."""

import ast
import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("runtime", "converters", "training", "server")
MAY_IMPORT = {
    "runtime": set(),
    "converters": {"runtime"},
    "training": {"runtime"},
    "server": {"runtime", "converters", "training"},
}


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def test_every_folder_with_files_is_packaged() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {
        path.parent.relative_to(ROOT)
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".py", ".jinja", ".css") and "__pycache__" not in path.parts
    }
    assert listed == {"tapster." + ".".join(folder.parts) for folder in folders}


def test_the_installed_package_has_every_file() -> None:
    spec = find_spec("tapster.runtime")
    assert spec
    assert spec.submodule_search_locations
    site = Path(spec.submodule_search_locations[0]).parent
    for room in ROOMS:
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert (site / path.relative_to(ROOT)).is_file(), path


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    for path in modules(room):
        depth = len(path.relative_to(ROOT).parts) - 1
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level > depth:
                target = (node.module or "").split(".")[0]
                assert target in MAY_IMPORT[room], f"{path} imports {target}"
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert not (node.module or "").startswith("tapster"), f"{path}: imports inside are relative"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from tapster.server.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'llama_cpp', 'fastapi', 'gradio', 'jinja2', 'huggingface_hub', 'pydantic', 'rich'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"
    assert all(command in done.stdout for command in ("serve", "chat", "inspect", "bench"))


def test_serving_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers'): sys.modules[name] = None\n"
        "import tapster.server.process, tapster.runtime.runtime, tapster.server.http.app\n"
        "import tapster.runtime.engines.llamacpp.engine, tapster.server.page.mount\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env={**os.environ})
