"""The demo model as a teacher: behind ``tapster serve``, started for us or found at an address, and in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tapster.runtime.errors import ConfigError
from tapster.server.commands.checkpoints import checkpoint_folder
from tapster.training.data.encode import Encoder
from tapster.training.data.examples import Message
from tapster.training.loop.collate import Collator
from tapster.training.objectives.select import predictions_of
from tapster.training.recipe.schema import Consistency, Teacher
from tapster.training.teacher.answers import is_usable
from tapster.training.teacher.encoding import Encoding
from tapster.training.teacher.journal import Journal
from tapster.training.teacher.open import open_teacher
from tapster.training.teacher.own_server import serve_local

ASKED = [
    [{"role": "user", "content": question}]
    for question in ("What is the capital of Japan?", "What is 2 + 2?", "Name a colour.")
]


@pytest.fixture(scope="module")
def checkpoint(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo model as a Hugging Face folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield checkpoint_folder(str(demo_model), quiet=True)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def url(demo_model: Path) -> Iterator[str]:
    with serve_local(str(demo_model), options=["--max-waiting", "64"]) as address:
        yield address


def text_cache(folder: Path, **fields: Any) -> Any:
    table = Teacher(kind="text-cache", **{"max_tokens": 24, "concurrency": 3, **fields})
    return open_teacher(table, folder, resolve_model=Path, say=lambda _line: None)


def answers(folder: Path) -> list[dict[str, Any]]:
    return sorted(Journal(folder).records(), key=lambda record: record["prompt"])


def test_a_model_is_served_while_it_answers_and_then_gone(tmp_path: Path, demo_model: Path) -> None:
    teacher = text_cache(tmp_path, model=str(demo_model))
    teacher.prepare(ASKED)
    found = answers(tmp_path)
    assert len(found) == 3
    assert any("Tokyo" in (record["teacher_text"] or "") for record in found)
    for record in filter(is_usable, found):
        assert 0 <= record["output_entropy"] <= record["output_entropy_upper"] < np.log(49152)
        assert (record["entropy_estimator"], record["top_k"]) == ("top-k", 20)
        assert record["usage"]["completion_tokens"] > 0
        assert record["teacher"]["sha256"] == teacher.identity()["sha256"]
    teacher.prepare(ASKED)  # nothing is missing, so nothing is served
    assert answers(tmp_path) == found


def test_a_server_is_asked_at_its_address(tmp_path: Path, url: str) -> None:
    text_cache(tmp_path, endpoint=url, max_tokens=64, consistency=Consistency(samples=2)).prepare(ASKED)
    agreeing = [record for record in answers(tmp_path) if is_usable(record) and len(record["samples"]) == 2]
    assert agreeing  # of the others, samples were cut off
    for record in agreeing:
        assert 0 <= record["self_consistency"] <= 1
        assert 0 <= record["difficulty_score"] <= 1
        assert record["teacher"]["served_as"] == record["teacher"]["model"]
    plain = text_cache(tmp_path / "plain", endpoint=url)
    plain.prepare(ASKED)
    assert "self_consistency" not in plain.all_rows().column_names


def token_rows(tokenizer: Any) -> list[dict[str, Any]]:
    encoder = Encoder(tokenizer, max_length=128)
    chat: list[Message] = [
        {"role": "user", "content": "Where is the Eiffel Tower?"},
        {"role": "assistant", "content": "The naïve answer 👍 is: in Paris, of course."},
    ]
    found = encoder.conversation(chat)
    return [{"input_ids": found.input_ids, "labels": found.labels, "index": 0}]


def stored(teacher: Any, rows: list[dict[str, Any]]) -> Any:
    batch = Collator(0)(rows)
    row, position = predictions_of(batch)
    return teacher.targets(batch, row, position).chunk(slice(0, len(row)))


def test_distributions_of_a_server_are_those_of_the_model(
    tmp_path: Path, url: str, checkpoint: Path, model: Any, tokenizer: Any
) -> None:
    """As far as llama.cpp's quantized arithmetic and float32 agree."""
    rows = token_rows(tokenizer)
    common = {"resolve_model": Path, "student": model, "tokenizer": tokenizer, "say": lambda _line: None}
    found = []
    for name, source in (("url", {"endpoint": url}), ("model", {"model": str(checkpoint)})):
        table = Teacher.model_validate({"kind": "logit-cache", "top_k": 20, **source})
        teacher = open_teacher(table, tmp_path / name, device="cpu", **common)
        teacher.prepare(rows)
        found.append(stored(teacher, rows))
    theirs, ours = found
    assert theirs.ids.shape == ours.ids.shape
    assert (theirs.ids[:, 0] == ours.ids[:, 0]).float().mean() > 0.8
    near = torch.tensor([[float(b[ids_b == i]) if (ids_b == i).any() else float("nan") for i in ids_a]
                         for ids_a, ids_b, b in zip(theirs.ids, ours.ids, ours.log_probs, strict=True)])  # fmt: skip
    difference = (theirs.log_probs - near).abs()
    assert difference.isfinite().float().mean() > 0.7
    assert difference.nanmean() < 0.25
    table = Teacher(kind="logit-cache", top_k=64, endpoint=url)
    with pytest.raises(ConfigError, match=r"teacher.top_k 64 is more than the server has"):
        open_teacher(table, tmp_path / "more", **common).prepare(rows)


def test_328_bytes_hold_real_distributions(model: Any, tokenizer: Any) -> None:
    """At Llama 3's vocabulary, in which the model's tokens are spread at random."""
    [row] = token_rows(tokenizer)
    with torch.no_grad():
        log_probs = model(input_ids=torch.tensor(row["input_ids"])[None]).logits[0].log_softmax(-1)
    top = log_probs.topk(128)
    places = np.random.default_rng(0).permutation(128_256)[: log_probs.shape[1]]
    ids, values = places[top.indices.numpy()], top.values.numpy()
    encoding = Encoding(128_256, 128)
    records = encoding.encode(ids, values)
    assert records.shape == (len(ids), 328)
    kl = encoding.reconstruction_kl(ids, values, records)
    assert (kl > -1e-6).all()
    assert (kl < 1e-4).all()
