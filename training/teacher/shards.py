"""Encoded distributions on disk: safetensors files that appear whole, looked up by what they are the predictions of.

A file holds ``keys`` (R,), one for each row of text, ``starts`` (R + 1,), where its predictions begin, ``records``
(N, bytes), and ``figures`` (R, 3): of a row's predictions the sum of the reconstruction KL divergences, the largest of
them, and the sum of the stored mass. The key of a row is a hash of its tokens and of the positions that are predicted:
shuffling, packing and further stages do not matter, and a cache can never be read for another text than it was made of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import TrainingError
from .encoding import Encoding
from .files import write_whole

_PREFIX = "logits-"


def row_key(input_ids: np.ndarray, positions: np.ndarray) -> int:
    """Of the predictions after ``positions`` of a row: of everything that the last of them depends on."""
    read = input_ids[: int(positions[-1]) + 2]
    digest = blake2b(read.astype("<i8").tobytes() + b"|" + positions.astype("<i8").tobytes(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the predictions of a row are."""

    shard: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class StoredRow:
    """The encoded predictions of a row, and its line of ``figures``."""

    key: int
    records: np.ndarray
    figures: tuple[float, float, float]


class Shards:
    """The files of a folder. ``heal`` sets aside what cannot be read."""

    def __init__(self, folder: Path, encoding: Encoding) -> None:
        self.folder = folder
        self.encoding = encoding
        self.statistics = _NOTHING
        """Sums over all predictions: ``predictions``, ``kl``, ``mass``; and ``max_kl``."""
        self._paths: list[Path] = []
        self._records: list[Any] = []
        self._places: dict[int, Place] = {}

    def open(self) -> None:
        """Read what there is. TrainingError for a damaged file."""
        self.close()
        for path in sorted(self.folder.glob(f"{_PREFIX}*.safetensors")):
            self.add(path)

    def heal(self) -> list[Path]:
        """The same, but damaged files are renamed, so that their rows are made again. Returns their new names."""
        self.close()
        broken = []
        for path in sorted(self.folder.glob(f"{_PREFIX}*.safetensors")):
            try:
                self.add(path)
            except TrainingError:
                broken.append(path.rename(path.with_suffix(".damaged")))
        return broken

    def close(self) -> None:
        self._paths, self._records, self._places, self.statistics = [], [], {}, _NOTHING

    def __contains__(self, key: int) -> bool:
        return key in self._places

    def place(self, key: int) -> Place | None:
        return self._places.get(key)

    def read(self, place: Place, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """Ids and log-probabilities of a part of a row's predictions. TrainingError when they are damaged."""
        try:
            return self.encoding.decode(self._records[place.shard][place.start + part.start : place.start + part.stop])
        except TrainingError as error:
            raise _damaged(self._paths[place.shard], error) from error

    def next_path(self) -> Path:
        """Where a further file goes."""
        taken = [int(path.name.removeprefix(_PREFIX).partition(".")[0]) for path in self.folder.glob(f"{_PREFIX}*")]
        return self.folder / f"{_PREFIX}{max(taken, default=-1) + 1:05}.safetensors"

    def write(self, path: Path, rows: Sequence[StoredRow]) -> None:
        """Write rows as the file ``path``, in place of what it holds. To be read back with ``add``."""
        from safetensors.numpy import save

        tensors = {
            "keys": np.array([row.key for row in rows], np.uint64),
            "starts": np.cumsum([0, *(len(row.records) for row in rows)], dtype=np.int64),
            "records": np.concatenate([row.records for row in rows]),
            "figures": np.array([row.figures for row in rows], np.float64),
        }
        write_whole(path, save(tensors))

    def add(self, path: Path) -> None:
        """Read a file. TrainingError when it is damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:
                keys, starts, figures = (file.get_tensor(name) for name in ("keys", "starts", "figures"))
                shape = tuple(file.get_slice("records").get_shape())
            if shape != (int(starts[-1]), self.encoding.record_bytes) or not np.isfinite(figures).all():
                raise ValueError(f"its records are {shape}, with figures {figures.sum(axis=0)}")
            if not len(keys) == len(figures) == len(starts) - 1:
                raise ValueError(f"it has {len(keys)} keys, {len(starts)} starts and {len(figures)} figures")
            records = np.memmap(path, np.uint8, "r", _data_offset(path, "records"), shape)
        except (SafetensorError, OSError, ValueError, LookupError) as error:
            raise _damaged(path, error) from error
        places = [Place(len(self._paths), start, stop) for start, stop in pairwise(starts.tolist())]
        self._places |= dict(zip(keys.tolist(), places, strict=True))
        self._paths.append(path)
        self._records.append(records)
        self.statistics = _with(self.statistics, int(starts[-1]), figures)


_NOTHING: dict[str, float] = {"predictions": 0.0, "kl": 0.0, "mass": 0.0, "max_kl": 0.0}


def _with(before: dict[str, float], count: int, figures: np.ndarray) -> dict[str, float]:
    return {
        "predictions": before["predictions"] + count,
        "kl": before["kl"] + float(figures[:, 0].sum()),
        "mass": before["mass"] + float(figures[:, 2].sum()),
        "max_kl": max(before["max_kl"], float(figures[:, 1].max(initial=0.0))),
    }


def _data_offset(path: Path, name: str) -> int:
    """Where in a safetensors file the bytes of a tensor begin."""
    import json

    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return 8 + size + json.loads(file.read(size))[name]["data_offsets"][0]


def _damaged(path: Path, error: Exception) -> TrainingError:
    said = " ".join(str(error).split())
    return TrainingError(f"{path} is damaged ({said}): delete it, and the same command makes its rows again")
