"""Encoded distributions on disk: safetensors files that appear whole, looked up by what they are the predictions of.

A file holds ``keys`` (R,), one for each row of text, ``starts`` (R + 1,), where its predictions begin, and ``records``
(N, bytes). The key of a row is a hash of its tokens and of the positions that are predicted: shuffling, packing and
further stages do not matter, and a cache can never be read for another text than it was made of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import TrainingError
from .encoding import Encoding
from .files import write_whole

PREDICTIONS_PER_FILE = 1 << 16
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


class Shards:
    """The shards of a folder. ``heal`` sets aside what cannot be read; ``add`` writes one more."""

    def __init__(self, folder: Path, encoding: Encoding) -> None:
        self.folder = folder
        self.encoding = encoding
        self.statistics: dict[str, float] = {}
        """Sums over all predictions: ``predictions``, ``kl``, ``mass``; and ``max_kl``."""
        self._paths: list[Path] = []
        self._records: list[Any] = []
        self._places: dict[int, Place] = {}

    def open(self) -> None:
        """Read what there is. TrainingError for a damaged file."""
        self.close()
        for path in sorted(self.folder.glob(f"{_PREFIX}*.safetensors")):
            self._open(path)

    def heal(self) -> list[Path]:
        """The same, but damaged files are renamed, so that their rows are made again. Returns their new names."""
        self.close()
        broken = []
        for path in sorted(self.folder.glob(f"{_PREFIX}*.safetensors")):
            try:
                self._open(path)
            except TrainingError:
                broken.append(path.rename(path.with_suffix(".damaged")))
        return broken

    def close(self) -> None:
        self._paths, self._records, self._places, self.statistics = [], [], {}, {}

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

    def add(self, keys: Sequence[int], records: Sequence[np.ndarray], statistics: dict[str, float]) -> None:
        """Write rows as one more file, and read it back."""
        from safetensors.numpy import save

        taken = [int(path.stem.removeprefix(_PREFIX)) for path in self.folder.glob(f"{_PREFIX}*")]
        path = self.folder / f"{_PREFIX}{max(taken, default=-1) + 1:05}.safetensors"
        starts = np.cumsum([0, *(len(one) for one in records)], dtype=np.int64)
        tensors = {"keys": np.array(keys, np.uint64), "starts": starts, "records": np.concatenate(list(records))}
        write_whole(path, save(tensors, {name: repr(value) for name, value in statistics.items()}))
        self._open(path)

    def _open(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:
                keys, starts = file.get_tensor("keys"), file.get_tensor("starts")
                records, metadata = file.get_slice("records"), file.metadata() or {}
                statistics = {name: float(value) for name, value in metadata.items()}
                if list(records.get_shape()) != [int(starts[-1]), self.encoding.record_bytes]:
                    raise ValueError(f"its records are {records.get_shape()}")
                offset = _data_offset(path, "records")
        except (SafetensorError, OSError, ValueError, LookupError) as error:
            raise _damaged(path, error) from error
        shard, shape = len(self._paths), (int(starts[-1]), self.encoding.record_bytes)
        self._paths.append(path)
        self._records.append(np.memmap(path, np.uint8, "r", offset, shape))
        for idx, key in enumerate(keys.tolist()):
            self._places[key] = Place(shard, int(starts[idx]), int(starts[idx + 1]))
        for name, value in statistics.items():
            before = self.statistics.get(name, 0.0)
            self.statistics[name] = max(before, value) if name == "max_kl" else before + value


def _data_offset(path: Path, name: str) -> int:
    """Where in a safetensors file the bytes of a tensor begin."""
    import json

    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return 8 + size + json.loads(file.read(size))[name]["data_offsets"][0]


def _damaged(path: Path, error: Exception) -> TrainingError:
    said = " ".join(str(error).split())
    return TrainingError(f"{path} is damaged ({said}): delete it, and the same command makes its rows again")
