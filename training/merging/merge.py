"""Two checkpoints of one architecture become one between them, tensor by tensor.

Only one tensor of each is in memory at a time, so the size of a model does not matter; one file of the result is
gathered before it is written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...runtime.errors import TrainingError
from ..disk import or_a_clear_end_of_files

if TYPE_CHECKING:
    from torch import Tensor

Method = Literal["slerp", "lerp"]
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def merge_folders(first: Path, second: Path, result: Path, method: Method, weight_of_second: float) -> None:
    """Write the model between ``first`` and ``second`` to ``result``, with everything else as in ``second``.

    The result is complete or not there. TrainingError where the two do not have the same tensors, one of them holds a
    number that is none, or there is no room.
    """
    growing = result.with_name(f".{result.name}.growing")
    shutil.rmtree(growing, ignore_errors=True)
    try:
        with or_a_clear_end_of_files(f"write the merged model {result}"):
            _write(first, second, growing, method, weight_of_second)
            shutil.rmtree(result, ignore_errors=True)
            growing.rename(result)
    finally:
        shutil.rmtree(growing, ignore_errors=True)


def _write(first: Path, second: Path, result: Path, method: Method, weight_of_second: float) -> None:
    shutil.copytree(second, result, ignore=lambda _, names: [name for name in names if name.endswith(".safetensors")])
    with ExitStack() as files:
        old, new = (_Weights(folder, files) for folder in (first, second))
        _check_same(old, new)
        for file, names in new.files.items():
            merged = {name: _between(name, old.read(name), new.read(name), method, weight_of_second) for name in names}
            _save(merged, result / file)


class _Weights:
    """The tensors of a folder: which file each is in, read when asked for."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        from safetensors import SafetensorError, safe_open

        self.folder = folder
        self._readers: dict[str, Any] = {}
        self.files: dict[str, list[str]] = {}
        try:
            for file in _weight_files(folder):
                self._readers[file] = files.enter_context(safe_open(folder / file, framework="pt"))
                self.files[file] = list(self._readers[file].keys())
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"the weights in {folder} cannot be read: {error}") from error
        self._place = {name: file for file, names in self.files.items() for name in names}

    def names(self) -> set[str]:
        return set(self._place)

    def shape(self, name: str) -> list[int]:
        return self._readers[self._place[name]].get_slice(name).get_shape()

    def read(self, name: str) -> Tensor:
        return self._readers[self._place[name]].get_tensor(name)


def _weight_files(folder: Path) -> Iterator[str]:
    index = folder / _INDEX
    if index.is_file():
        yield from sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        yield _SINGLE


def _check_same(first: _Weights, second: _Weights) -> None:
    if lone := sorted(first.names() ^ second.names()):
        there = second.folder if lone[0] in first.names() else first.folder
        raise TrainingError(f"{first.folder} and {second.folder} cannot be merged: {there} has no tensor {lone[0]}")
    for name in sorted(first.names()):
        if (a := first.shape(name)) != (b := second.shape(name)):
            raise TrainingError(
                f"{first.folder} and {second.folder} cannot be merged: {name} has the shapes {a} and {b}"
            )


def _between(name: str, old: Tensor, new: Tensor, method: Method, weight: float) -> Tensor:
    from .interpolate import lerp, slerp

    merged = (slerp if method == "slerp" else lerp)(old, new, weight)
    if not merged.isfinite().all():
        raise TrainingError(f"merging gives no finite numbers for {name}: one of the two checkpoints is damaged")
    return merged


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"format": "pt"})
