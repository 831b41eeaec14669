"""How many rows a stage has, told beforehand."""

import json
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest

from tapster.training.data.count import rows_of
from tapster.training.recipe.schema import Data


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def builder(name: str, config: str | None) -> SimpleNamespace:
        if name != "org/data":
            raise FileNotFoundError(name)
        splits = {"train": SimpleNamespace(num_examples=1000), "test": SimpleNamespace(num_examples=7)}
        return SimpleNamespace(info=SimpleNamespace(splits=splits if config != "silent" else None))

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)


@pytest.mark.parametrize(
    ("train", "max_rows", "count"),
    [
        (["mine.jsonl"], None, 3),
        (["mine.jsonl", "sample:chat"], None, 179),
        (["mine.jsonl"], 2, 2),
        (["mine.jsonl"], 9, 3),
        (["hub:org/data"], None, 1000),
        (["hub:org/data:test", "mine.jsonl"], None, 10),
        (["hub:org/data:train[:50]"], None, 50),
        (["hub:org/data:train[10%:20%]"], None, 100),
        (["hub:org/data:silent:train", "mine.jsonl"], None, None),
        (["hub:org/gone", "mine.jsonl"], None, None),
        (["hub:org/gone", "mine.jsonl"], 50, 50),
        (["teacher"], None, None),
    ],
)
def test_rows_are_counted_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: list[str], max_rows: int | None, count: int | None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").write_text("".join(json.dumps({"text": str(n)}) + "\n" for n in range(3)))
    assert rows_of(Data(train=train, max_rows=max_rows)) == count
