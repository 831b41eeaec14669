"""The logit cache: what it stores against the model's own distributions, and what kills, full disks and damage do."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teacher_models import VOCABULARY, packed_row, saved, tiny_model, token_rows

from tapster.runtime.errors import ConfigError, ModelError, TrainingError
from tapster.training.loop.collate import Collator
from tapster.training.objectives.select import predictions_of
from tapster.training.recipe.schema import Teacher
from tapster.training.teacher.open import open_teacher


def cache(model: Path | None, folder: Path, said: list[str] | None = None, **fields: Any) -> Any:
    table = Teacher(kind="logit-cache", model=None if model is None else str(model), **{"top_k": 16, **fields})
    say = (said if said is not None else []).append
    student = tiny_model(vocab_size=VOCABULARY)
    return open_teacher(table, folder, resolve_model=Path, student=student, device="cpu", say=say)


def targets_of(teacher: Any, rows: Sequence[Any]) -> tuple[Any, Any]:
    """A collated batch, and the stored distributions of all its predictions, read in two chunks."""
    batch = Collator(0)(rows)
    row, position = predictions_of(batch)
    source, half = teacher.targets(batch, row, position), len(row) // 2
    parts = [source.chunk(slice(0, half)), source.chunk(slice(half, len(row)))]
    return batch, [torch.cat([getattr(part, name) for part in parts]) for name in ("ids", "log_probs")]


def true_log_probs(model: Any, rows: Sequence[Any]) -> torch.Tensor:
    """Of all predictions, row by row without padding or packing."""
    found = []
    for row in rows:
        ids = torch.tensor(row["input_ids"])[None]
        log_probs = model(input_ids=ids).logits[0].log_softmax(-1)
        found.append(log_probs[:-1][torch.tensor(row["labels"][1:]) >= 0])
    return torch.cat(found)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny_model(), tmp_path_factory.mktemp("teacher"))


@pytest.mark.parametrize("is_packed", [False, True])
def test_what_is_stored_is_the_model_s_top_k(tmp_path: Path, model: Path, is_packed: bool) -> None:
    rows, said = token_rows(12), list[str]()
    given = [packed_row(rows[:5]), packed_row(rows[5:])] if is_packed else rows
    teacher = cache(model, tmp_path, said)
    teacher.prepare(given[:1], given[1:])
    _, (ids, log_probs) = targets_of(teacher, given)
    with torch.no_grad():
        top = true_log_probs(tiny_model(), rows).topk(16)
    assert torch.equal(ids.sort().values, top.indices.sort().values)
    mass = top.values.logsumexp(-1)
    assert torch.allclose(log_probs.logsumexp(-1), mass, atol=1e-4)  # the missing mass is exact
    assert (log_probs - top.values).abs().max() < 0.05
    found = teacher.statistics
    assert found["predictions"] == len(ids)
    assert found["mass"] == pytest.approx(float(mass.exp().mean()), rel=1e-4)
    assert 0 < found["reconstruction_kl"] <= found["max_reconstruction_kl"] < 1e-4
    assert f"16 top log-probabilities in {teacher._shards.encoding.record_bytes} bytes each" in said[-1]


def test_shuffled_and_further_rows_are_found(tmp_path: Path, model: Path) -> None:
    rows = token_rows(20)
    first = cache(model, tmp_path)
    first.prepare(rows[:10])
    _, before = targets_of(first, rows[3:5])
    said: list[str] = []
    again = cache(model, tmp_path, said)
    again.prepare(rows, rows[:3])
    assert again.statistics["predictions"] == len(true_log_probs(tiny_model(), rows))
    _, after = targets_of(again, [rows[15], *rows[3:5]])
    assert torch.equal(after[1][-len(before[1]) :], before[1])
    other = token_rows(1, seed=9)
    with pytest.raises(TrainingError, match="no distributions for a row of the training text"):
        targets_of(again, other)
    brought = cache(None, tmp_path)
    brought.prepare(rows)
    assert torch.equal(targets_of(brought, rows[3:5])[1][1], before[1])
    assert len(list(tmp_path.glob("logits-*"))) == 2


def test_a_sample_is_unbiased(tmp_path: Path, model: Path) -> None:
    """Rows that differ in the label alone: the same distribution, drawn anew for each."""
    rows = [{"input_ids": [3, 4, 5, 6, last], "labels": [-100] * 4 + [last], "index": 0} for last in range(3, 300)]
    teacher = cache(model, tmp_path, sampled=True)
    teacher.prepare(rows)
    _, (ids, log_probs) = targets_of(teacher, rows)
    weights = torch.zeros(len(ids), VOCABULARY).scatter_add_(1, ids, log_probs.exp())
    assert torch.allclose(weights.sum(-1), torch.ones(len(ids)), atol=1e-4)
    with torch.no_grad():
        true = true_log_probs(tiny_model(), rows[:1])[0].exp()
    step = 1 / 16 / len(rows)  # of the mean, by a draw more; the variance of a weight is at most p / 16
    assert ((weights.mean(0) - true).abs() <= 4 * (true * step).sqrt() + step).all()
    top = true.topk(16).values.sum()
    assert (weights.mean(0)[true.topk(16).indices].sum() - top).abs() < 0.02  # which a top 16 of mass 1 would miss
    assert top < 0.9
    assert teacher.targets(Collator(0)(rows[:1]), torch.tensor([0]), torch.tensor([3])).chunk(slice(0, 1)).is_sample


def test_another_model_in_its_place_is_noticed(tmp_path: Path) -> None:
    model, folder, rows = tmp_path / "model", tmp_path / "cache", token_rows(3)
    saved(tiny_model(), model)
    teacher = cache(model, folder)
    teacher.prepare(rows)
    assert len(teacher.identity()["sha256"]) == 32
    saved(tiny_model(seed=1), model)
    with pytest.raises(ConfigError, match=r"another teacher: sha256 is '\w+' there and '\w+' here; name another"):
        cache(model, folder).prepare(rows)
    with pytest.raises(ConfigError, match="top_k is 16 there and 8 here"):
        cache(model, folder, top_k=8).prepare(rows)
    with pytest.raises(ConfigError, match="max_rows is for a text-cache"):
        cache(model, folder, max_rows=3)
    with pytest.raises(ModelError, match="cannot be loaded"):
        cache(tmp_path / "nothing", tmp_path / "other").prepare(rows)
    with pytest.raises(ConfigError, match="no logit cache"):
        cache(None, tmp_path / "third")


def test_logits_that_are_nan_are_refused(tmp_path: Path) -> None:
    rows, model = token_rows(20), tiny_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[rows[-1]["input_ids"][2], 3] = float("nan")  # of one token in use
    with pytest.raises(TrainingError, match="NaN or infinity: is its checkpoint whole"):
        cache(saved(model, tmp_path / "model"), tmp_path / "cache").prepare(rows)
    with torch.no_grad():
        model.lm_head.weight[7, 3] = float("nan")
    with pytest.raises(ModelError, match="are NaN: is its checkpoint whole"):
        cache(saved(model, tmp_path / "other"), tmp_path / "second").prepare(rows)


def test_damage(tmp_path: Path, model: Path) -> None:
    rows, said = token_rows(6), list[str]()
    teacher = cache(model, tmp_path, said)
    teacher.prepare(rows)
    [path] = tmp_path.glob("logits-*")
    whole, record_bytes = path.read_bytes(), teacher._shards.encoding.record_bytes
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match=r"logits-00000.safetensors is damaged .*: delete it"):
        cache(None, tmp_path).prepare(rows)
    cache(model, tmp_path, said).prepare(rows)  # which has the model at hand
    assert "a damaged file is set aside" in said[-2]
    assert sorted(found.suffix for found in tmp_path.glob("logits-*")) == [".damaged", ".safetensors"]
    [path] = tmp_path.glob("logits-*.safetensors")
    data = bytearray(whole)
    at = whole.index(np.asarray(teacher._shards._records[0][:1]).tobytes())  # the first record
    data[at + record_bytes - 4 : at + record_bytes] = np.float32(np.nan).tobytes()
    path.write_bytes(bytes(data))
    again = cache(model, tmp_path)
    again.prepare(rows)
    with pytest.raises(TrainingError, match=r"logits-00001.safetensors is damaged .*NaN.*: delete it"):
        targets_of(again, rows)


def test_a_file_whose_parts_disagree_is_damaged_and_nothing_of_it_is_used(tmp_path: Path, model: Path) -> None:
    from safetensors.numpy import load_file, save_file

    rows, said = token_rows(6), list[str]()
    cache(model, tmp_path).prepare(rows)
    [path] = tmp_path.glob("logits-*")
    tensors = load_file(path)
    for name in ("keys", "figures"):
        save_file(tensors | {name: tensors[name][:-1]}, path)
        with pytest.raises(TrainingError, match=r"logits-00000.safetensors is damaged \(it has \d keys, 7 starts"):
            cache(None, tmp_path).prepare(rows)
    again = cache(model, tmp_path, said)
    again.prepare(rows)
    assert "a damaged file is set aside" in said[0]
    assert again.statistics["predictions"] == len(tensors["records"])
    targets_of(again, rows)


CHILD = """
import sys, time
from pathlib import Path
import numpy as np
from tapster.runtime.errors import TapsterError
from tapster.training.teacher import pending
from tapster.training.teacher.capture import Captured
from tapster.training.teacher.logit_cache import LogitCache
pause_s, pending.EVERY_S = float(sys.argv[2]), 0.02
class Uniform:
    def about(self):
        return {"sha256": "0"}
    def capture(self, rows):
        for row in rows:
            time.sleep(pause_s)
            shape = len(row.positions), 16
            yield [Captured(row, np.tile(np.arange(16), (shape[0], 1)), np.full(shape, -3.0), np.full(shape[0], 0.8))]
what = {"model": "uniform", "top_k": 16, "sampled": False, "vocab_size": 300}
rows = [{"input_ids": [n, *range(50)], "labels": [-100, *range(50)]} for n in range(400)]
cache = LogitCache(Path(sys.argv[1]), what, Uniform, say=print)
try:
    cache.prepare(rows)
except TapsterError as error:
    sys.exit(f"tapster: {error}")
"""
PREDICTIONS = 400 * 50


def child(folder: Path, pause_s: float) -> list[str]:
    return [sys.executable, "-c", CHILD, str(folder), str(pause_s)]


def stored(folder: Path) -> float:
    """Predictions in a folder, all of them read."""
    found = cache(None, folder)
    return found.statistics["predictions"]


def test_a_kill_loses_a_moment_s_work(tmp_path: Path) -> None:
    process = subprocess.Popen(child(tmp_path, 0.005), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("logits-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < stored(tmp_path) < PREDICTIONS  # far less than a file holds
    before = {path.name: path.read_bytes() for path in tmp_path.glob("logits-*")}
    subprocess.run(child(tmp_path, 0.0), check=True, stdout=subprocess.DEVNULL)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert stored(tmp_path) == PREDICTIONS  # each once


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    limited = ["sh", "-c", 'ulimit -f 100; exec "$@"', "sh", *child(tmp_path, 0.001)]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]
    assert 0 < stored(tmp_path) < PREDICTIONS
    subprocess.run(child(tmp_path, 0.0), check=True, stdout=subprocess.DEVNULL)
    assert stored(tmp_path) == PREDICTIONS


def test_a_second_process_is_kept_out(tmp_path: Path, model: Path) -> None:
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match="another process is filling the cache"):
            cache(model, tmp_path).prepare(token_rows(1))
