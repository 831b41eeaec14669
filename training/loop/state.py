"""Which stages of a run are done, and what they depended on: ``state.json`` in the run's folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from ...runtime.errors import ConfigError
from ..recipe.schema import Recipe, Stage

FILE = "state.json"
OURS = ("stages", "student", "model", "data", "tensorboard", FILE, "recipe.toml", "metrics.jsonl", "loss.png")
"""What a run writes and ``force`` removes. The teacher's cache stays: it is dear, and knows itself what it is of."""
UNIMPORTANT = {"logging_steps", "eval_steps", "save_steps", "gradient_share_steps", "micro_batch_size"}
"""Keys of a stage that change nothing of its result."""


class State:
    """Read when made; every change is on the disk before the method returns."""

    def __init__(self, out: Path) -> None:
        self._path = out / FILE
        self._stages: dict[str, dict[str, Any]] = self._read()

    def reload(self) -> None:
        """What the first process has written meanwhile."""
        self._stages = self._read()

    def save(self) -> None:
        """Mark the folder as a run's."""
        self._write()

    def is_done(self, stage: str) -> bool:
        return bool(self._stages.get(stage, {}).get("done"))

    def result(self, stage: str) -> dict[str, Any]:
        return self._stages[stage].get("result", {})

    def begin(self, stage: str, depends: str) -> None:
        self._stages[stage] = self._stages.get(stage, {}) | {"depends": depends}
        self._write()

    def finish(self, stage: str, result: dict[str, Any]) -> None:
        self._stages[stage] |= {"done": True, "result": result}
        self._write()

    def check(self, stages: dict[str, str]) -> None:
        """``stages``: names with what they depend on now. Raises ConfigError where that has changed since."""
        for name, depends in stages.items():
            before = self._stages.get(name)
            if before is not None and before["depends"] != depends:
                what = "done" if before.get("done") else "begun"
                raise ConfigError(
                    f"{self._path.parent}: stage {name} was {what} with other settings than the recipe has now; give "
                    "another --out, undo the change, or begin anew with --force"
                )
        if odd := next((name for name in self._stages if name not in stages), None):
            raise ConfigError(
                f"{self._path.parent} is of another recipe: it has a stage {odd}; give another --out, or --force"
            )

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            return json.loads(self._path.read_text(encoding="utf-8"))["stages"]
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self._path} is damaged ({error}); begin anew with --force") from None

    def _write(self) -> None:
        beside = self._path.with_suffix(".json.new")
        beside.write_text(json.dumps({"stages": self._stages}, indent=2) + "\n", encoding="utf-8")
        beside.replace(self._path)


def stage_names(recipe: Recipe) -> list[str]:
    """Folders of the stages, in order: ``01-name``."""
    return [f"{number:02d}-{stage.name}" for number, stage in enumerate(recipe.stages, 1)]


def dependencies(recipe: Recipe) -> dict[str, str]:
    """Of each stage, a hash of everything that its result depends on: student, teacher, and all stages up to it."""
    digest = hashlib.sha256(_canonical([recipe.student.model_dump(), recipe.teacher and recipe.teacher.model_dump()]))
    hashes = {}
    for name, stage in zip(stage_names(recipe), recipe.stages, strict=True):
        digest.update(_canonical(_important(stage)))
        hashes[name] = digest.hexdigest()
    return hashes


def clear(out: Path) -> None:
    """Remove what a run has written, but the teacher's cache."""
    for name in OURS:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def check_out(out: Path) -> None:
    """Raises ConfigError where ``out`` holds something that no run wrote."""
    if out.is_file():
        raise ConfigError(f"{out} is a file; --out is a folder")
    if out.is_dir() and not (out / FILE).is_file():
        known = {*OURS, "teacher"}
        if odd := next((path.name for path in out.iterdir() if path.name not in known), None):
            raise ConfigError(f"{out} is not of a training run (it holds {odd}); give another --out")


def _important(stage: Stage) -> dict[str, Any]:
    return {key: value for key, value in stage.model_dump().items() if key not in UNIMPORTANT}


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
