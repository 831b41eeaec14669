"""Teachers in memory: with the student's tokens, and with others, against the plain model on the plain text."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from small_tokenizer import small_tokenizer
from teacher_models import other_tokenizer, packed_row, saved, tiny_model

from tapster.runtime.errors import ConfigError, ModelError
from tapster.training.loop.collate import Collator
from tapster.training.objectives.select import predictions_of
from tapster.training.recipe.schema import Teacher
from tapster.training.teacher.foreign import ForeignTeacher
from tapster.training.teacher.online import OnlineTeacher
from tapster.training.teacher.open import open_teacher
from tapster.training.teacher.retelling import Retelling

TEXTS = ("The old lamp stood by the river.", "naïve 👍 friends carried a bridge, slowly", "Each song", "a " * 30)


@cache
def models() -> tuple[Any, Any]:
    """A teacher of the student's tokens, and one of others."""
    return tiny_model(vocab_size=704), tiny_model(seed=1, vocab_size=402)


def rows(*, is_packed: bool = False) -> list[dict[str, Any]]:
    """Texts of which the first tokens are not learnt."""
    found = []
    for index, text in enumerate(TEXTS):
        ids = small_tokenizer()(f"{text}<|im_end|>", add_special_tokens=False)["input_ids"]
        found.append({"input_ids": ids, "labels": [-100, -100, *ids[2:]], "index": index})
    return [packed_row(found[:2]), packed_row(found[2:])] if is_packed else found


def asked(teacher: Any, *, is_packed: bool = False) -> tuple[Any, Any, Any, Any]:
    """Row and position of the predictions of a batch, and what a teacher says: distributions in two chunks, spans."""
    batch = Collator(0)(rows(is_packed=is_packed))
    row, position = predictions_of(batch)
    source, half = teacher.targets(batch, row, position), len(row) // 3
    parts = [source.chunk(slice(0, half)).log_probs, source.chunk(slice(half, len(row))).log_probs]
    return row, position, torch.cat(parts), teacher.spans(batch, row, position)


def log_probs(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor(ids)[None]).logits[0].log_softmax(-1)


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_teacher_of_the_same_tokens(is_packed: bool) -> None:
    teacher = OnlineTeacher(models()[0], "tiny")
    _, _, found, spans = asked(teacher, is_packed=is_packed)
    true = [log_probs(models()[0], row["input_ids"])[1:-1] for row in rows()]
    assert torch.allclose(found, torch.cat(true), atol=1e-4)
    labels = torch.cat([torch.tensor(row["input_ids"][2:]) for row in rows()])
    assert torch.allclose(spans.teacher_log_probs, found.gather(1, labels[:, None])[:, 0], atol=1e-4)
    assert spans.of_prediction.tolist() == list(range(len(labels)))


def test_hidden_states_come_from_the_same_pass() -> None:
    teacher = OnlineTeacher(models()[0], "tiny", with_states=True)
    batch = Collator(0)(rows())
    states = teacher.states(batch)
    assert len(states) == 3
    with torch.no_grad():
        alone = models()[0](input_ids=torch.tensor(rows()[0]["input_ids"])[None], output_hidden_states=True)
    for ours, theirs in zip(states, alone.hidden_states, strict=True):
        assert torch.allclose(ours[0, : theirs.shape[1]], theirs[0], atol=1e-5)


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_foreign_teacher_of_the_same_tokens_says_the_same(is_packed: bool) -> None:
    plain = OnlineTeacher(models()[0], "tiny")
    foreign = ForeignTeacher(models()[0], "tiny", Retelling(small_tokenizer(), small_tokenizer()))
    one, other = (asked(teacher, is_packed=is_packed) for teacher in (plain, foreign))
    assert torch.allclose(one[2], other[2], atol=1e-4)
    assert torch.equal(one[3].of_prediction, other[3].of_prediction)
    assert torch.allclose(one[3].teacher_log_probs, other[3].teacher_log_probs, atol=1e-4)


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_foreign_teacher_reads_the_text_in_its_own_tokens(is_packed: bool) -> None:
    retelling = Retelling(small_tokenizer(), other_tokenizer())
    _, _, found, spans = asked(ForeignTeacher(models()[1], "tiny", retelling), is_packed=is_packed)
    begin = number = shared = 0
    for row in rows():
        told, count = retelling.tell(row["input_ids"]), len(row["input_ids"])
        true = log_probs(models()[1], told.ids)
        expected = torch.full((count, 402), -torch.inf)
        for ours, theirs in told.stretches:
            expected[ours.stop - 1] = true[theirs.stop - 1]
        assert torch.allclose(found[begin : begin + count - 2], expected[1:-1], atol=1e-4)
        shared += int(torch.isfinite(expected[1:-1, 0]).sum())
        for ours, theirs in told.stretches:
            if ours.start < 2:
                continue
            total = sum(float(true[at - 1, told.ids[at]]) for at in range(theirs.start, theirs.stop))
            assert float(spans.teacher_log_probs[number]) == pytest.approx(total, abs=1e-3)
            here = spans.of_prediction[begin + ours.start - 2 : begin + ours.stop - 2]
            assert here.tolist() == [number] * (ours.stop - ours.start)
            number += 1
        begin += count - 2
    assert number == len(spans.teacher_log_probs)
    assert 0 < shared < begin  # some places are shared, and some are not
    assert begin == len(spans.of_prediction)


def test_a_batch_without_predictions_is_no_trouble() -> None:
    teacher = ForeignTeacher(models()[1], "tiny", Retelling(small_tokenizer(), other_tokenizer()))
    batch = Collator(0)([{**row, "labels": [-100] * len(row["labels"])} for row in rows()])
    row, position = predictions_of(batch)
    assert teacher.targets(batch, row, position).chunk(slice(0, 0)).log_probs.shape == (0, 402)
    assert teacher.spans(batch, row, position).teacher_log_probs.shape == (0,)


def test_who_is_opened_for_which_terms(tmp_path: Path) -> None:
    def teacher(folder: Path, **more: Any) -> Any:
        table = Teacher(kind="online", model=str(folder))
        student, tokenizer = tiny_model(vocab_size=704), small_tokenizer()
        more = {"resolve_model": Path, "say": said.append, "device": "cpu", **more}
        return open_teacher(table, tmp_path, student=student, tokenizer=tokenizer, **more)

    said: list[str] = []
    alike, other = saved(models()[0], tmp_path / "alike"), saved(models()[1], tmp_path / "other")
    small_tokenizer().save_pretrained(alike)
    other_tokenizer().save_pretrained(other)
    assert isinstance(teacher(alike, needs_same_tokens=False), OnlineTeacher)
    assert not said
    assert isinstance(teacher(other, needs_same_tokens=False), ForeignTeacher)
    assert "another tokenizer" in said[-1]
    with pytest.raises(
        ConfigError, match=r"another tokenizer \(402 logits\) than the student \(704\): .* uld and alm alone"
    ):
        teacher(other)
    longer = saved(tiny_model(vocab_size=720), tmp_path / "longer")  # rows that no token uses
    with pytest.raises(ConfigError, match=r"logits of 720 tokens and the student of 704"):
        teacher(longer)
    small_tokenizer().save_pretrained(longer)
    assert asked(teacher(longer))[2].shape[1] == 704
    (other / "tokenizer.json").unlink()
    (other / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="tokenizer of the teacher"):
        teacher(other, needs_same_tokens=False)
