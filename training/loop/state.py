"""Which stages of a run are done, and what they depended on: ``state.json`` in the run's folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...runtime.errors import ConfigError
from ..data.sources import is_changed
from ..lock import alone
from ..recipe.schema import Recipe, Stage, Teacher
from .checkpoints import last_checkpoint

FILE = "state.json"
_GROWING = "state.json.new"
OF_THE_PIPELINE = ("pipeline.json", "artifacts")
OURS = ("stages", "student", "model", "data", "tensorboard", FILE, _GROWING, "recipe.toml", "metrics.jsonl", "loss.png")
"""What a run writes and ``force`` removes. The teacher's cache stays: it is dear, and knows itself what it is of."""
UNIMPORTANT = {"logging_steps", "eval_steps", "save_steps", "gradient_share_steps", "micro_batch_size"}
"""Keys of a stage that change nothing of its result."""
LOCK = ".lock"
_INSTEAD = "bring the old data back, give another --out, or begin anew with --force"


class State:
    """Read when made; every change is on the disk before the method returns. A stage that left nothing to go on from
    was never begun: it may be tried again with other settings."""

    def __init__(self, out: Path) -> None:
        self._path = out / FILE
        self._stages: dict[str, dict[str, Any]] = self._read()

    def reload(self) -> None:
        """What the first process has written meanwhile."""
        self._stages = self._read()

    def save(self) -> None:
        """Mark the folder as a run's."""
        self._write()

    @property
    def has_begun(self) -> bool:
        return bool(self._stages)

    def is_done(self, stage: str) -> bool:
        return bool(self._stages.get(stage, {}).get("done"))

    def result(self, stage: str) -> dict[str, Any]:
        return self._stages[stage].get("result", {})

    def depends(self, stage: str) -> str | None:
        """What the stage was begun with; None where it was not."""
        return self._stages.get(stage, {}).get("depends")

    def keep(self, stages: Collection[str]) -> None:
        """Forget all stages but these, with what they and the run as a whole have made; their checkpoints go first, so
        that nothing goes on from one of them."""
        out = self._path.parent
        made = [path for path in out.glob("stages/*") if path.name not in stages]
        for path in (*made, out / "model"):
            shutil.rmtree(path, ignore_errors=True)
        self._stages = {name: known for name, known in self._stages.items() if name in stages}
        self._write()

    def begin(self, stage: str, depends: str) -> None:
        self._stages[stage] = self._stages.get(stage, {}) | {"depends": depends}
        self._write()

    def check_sources(self, stage: str) -> None:
        """Raises ConfigError where files that the stage was trained on are others now."""
        what = "done" if self.is_done(stage) else "begun"
        for fingerprint in self.sources(stage):
            if is_changed(fingerprint):
                raise ConfigError(
                    f"{self._path.parent}: {fingerprint['source']} has changed since stage {stage} was {what} with it; "
                    f"{_INSTEAD}"
                )

    def check_rows(self, stage: str, rows: str | None) -> None:
        """Raises ConfigError where the stage was trained on other rows than ``rows``, the digest of what its data make
        now."""
        if self._stages.get(stage, {}).get("rows", rows) != rows:
            raise ConfigError(
                f"{self._path.parent}: the data of stage {stage} make other rows than when it was begun (a teacher's "
                f"answers, or how text becomes tokens, have changed); {_INSTEAD}"
            )

    def note_data(self, stage: str, sources: list[dict[str, Any]], rows: str | None) -> None:
        """What a stage is trained on."""
        self._stages[stage] |= {"sources": sources, "rows": rows}
        self._write()

    def sources(self, stage: str) -> list[dict[str, Any]]:
        return self._stages.get(stage, {}).get("sources", [])

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
        folder = self._path.parent / "stages"
        try:
            stages = json.loads(self._path.read_text(encoding="utf-8"))["stages"]
            return {name: known for name, known in stages.items() if known.get("done") or _has_work(folder / name)}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{self._path} is damaged ({error}); begin anew with --force") from None

    def _write(self) -> None:
        growing = self._path.with_name(_GROWING)
        growing.write_text(json.dumps({"stages": self._stages}, indent=2) + "\n", encoding="utf-8")
        growing.replace(self._path)


def stage_names(recipe: Recipe) -> list[str]:
    """Folders of the stages, in order: ``01-name``."""
    return [f"{number:02d}-{stage.name}" for number, stage in enumerate(recipe.stages, 1)]


def dependencies(recipe: Recipe) -> dict[str, str]:
    """Of each stage, a hash of everything that its result depends on: student, teacher, and all stages up to it."""
    digest = hashlib.sha256(_canonical([recipe.student.model_dump(), recipe.teacher and _answers_of(recipe.teacher)]))
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


def make_out(out: Path) -> None:
    """The folder of a run. ConfigError where there can be none."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {out}: {error.strerror}; give another --out") from None


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Raises TrainingError while another run is at work in ``out``. Of several processes the first one stands for all;
    that it is the first, its environment says."""
    check_out(out)
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    make_out(out)
    with alone(out / LOCK, f"another process is at work in {out}: wait for it, end it, or give another --out"):
        yield


def check_out(out: Path) -> None:
    """Raises ConfigError where ``out`` holds something that no run wrote."""
    if out.is_file():
        raise ConfigError(f"{out} is a file; --out is a folder")
    if out.is_dir() and not (out / FILE).is_file():
        known = {*OURS, *OF_THE_PIPELINE, "teacher", LOCK}
        if odd := next((path.name for path in out.iterdir() if path.name not in known), None):
            raise ConfigError(f"{out} is not of a training run (it holds {odd}); give another --out")


def _has_work(stage: Path) -> bool:
    """Whether a stage's folder has a whole checkpoint, or rounds, or what else comes after one."""
    others = (path for path in stage.glob("*") if not path.name.startswith("checkpoint-"))
    return last_checkpoint(stage) is not None or any(others)


def _answers_of(teacher: Teacher) -> dict[str, Any]:
    """What a teacher's answers depend on: not how fast it is asked, and where only if that alone says who it is."""
    return teacher.model_dump(exclude={"concurrency", "endpoint"} if teacher.model else {"concurrency"})


def _important(stage: Stage) -> dict[str, Any]:
    return {key: value for key, value in stage.model_dump().items() if key not in UNIMPORTANT}


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
