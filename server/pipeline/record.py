"""What the steps of a pipeline have made and of what: ``pipeline.json`` in the run's folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...runtime.errors import ConfigError, TrainingError

FILE = "pipeline.json"
_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """``outputs`` are paths in the run's folder. A step that was begun and not finished is not ``done``."""

    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    seconds: float = 0.0
    done: bool = False


class Record:
    """Read when made; every change is on the disk before the method returns."""

    def __init__(self, out: Path) -> None:
        self._out, self._path = out, out / FILE
        self._entries = self._read()

    def entry(self, step: str) -> Entry | None:
        return self._entries.get(step)

    def begin(self, step: str, inputs: Mapping[str, Any]) -> None:
        self._put(step, Entry(dict(inputs)))

    def finish(self, step: str, inputs: Mapping[str, Any], outputs: Sequence[Path], seconds: float) -> None:
        names = [str(path.relative_to(self._out)) for path in outputs]
        self._put(step, Entry(dict(inputs), names, round(seconds, 1), done=True))

    def missing(self, step: str) -> str | None:
        """The first of a step's outputs that is no longer there."""
        entry = self._entries.get(step)
        return next((name for name in entry.outputs if not (self._out / name).exists()), None) if entry else None

    def _put(self, step: str, entry: Entry) -> None:
        self._entries[step] = entry
        values = {"version": _VERSION, "steps": {name: asdict(one) for name, one in self._entries.items()}}
        beside = self._path.with_name(f".{FILE}.new")
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            beside.replace(self._path)
        except OSError as error:
            raise TrainingError(f"cannot write {self._path}: {error.strerror}") from error

    def _read(self) -> dict[str, Entry]:
        try:
            values = json.loads(self._path.read_text(encoding="utf-8"))
            if values["version"] != _VERSION:
                raise ConfigError(f"{self._path} is of another version of tapster: delete it to do all steps again")
            return {name: Entry(**entry) for name, entry in values["steps"].items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self._path} is damaged ({error}): delete it, and steps are done again") from None
