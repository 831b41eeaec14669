"""The parts of the loop by themselves."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import FalconH1Config, FalconH1ForCausalLM, LlamaConfig, LlamaForCausalLM, TrainingArguments

from tapster.runtime.errors import ConfigError, ModelError
from tapster.training.loop import stage, together
from tapster.training.loop.checkpoints import COMPLETE, finish_checkpoint, last_checkpoint
from tapster.training.loop.collate import Collator, columns_of, lengths, position_ids
from tapster.training.loop.ledger import Ledger
from tapster.training.loop.module import StudentModule, check_student, logit_scale
from tapster.training.loop.order import group_size, micro_batch_size, plan_rows, sort_within_steps, total_steps
from tapster.training.loop.shares import gradient_shares, shares
from tapster.training.objectives.assembly import Assembly
from tapster.training.objectives.batch import GlobalBatch
from tapster.training.recipe.schema import Objective, Stage, Student


def row(ids: list[int], index: int, segments: list[int] | None = None, **columns: object) -> dict:
    labels = [-100, *ids[1:]]
    return {
        "input_ids": ids,
        "labels": labels,
        "index": index,
        **({"segments": segments} if segments else {}),
        **columns,
    }


def test_a_batch_is_padded_at_the_right() -> None:
    batch = Collator(pad_id=9)(
        [row([1, 2, 3], 7, output_entropy=0.5, text="x"), row([4], 8, output_entropy=2, text="y")]
    )
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["labels"].tolist() == [[-100, 2, 3], [-100, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["index"].tolist() == [7, 8]
    assert {name: value.tolist() for name, value in columns_of(batch).items()} == {"output_entropy": [0.5, 2.0]}
    assert lengths(batch).tolist() == [[3], [1]]


def test_positions_and_lengths_of_packed_documents() -> None:
    batch = Collator(pad_id=9)([row([1, 2, 3, 4, 5], 0, [0, 0, 1, 2, 2]), row([6, 7, 8], 1, [0, 0, 0])])
    assert position_ids(batch["segments"]).tolist() == [[0, 1, 0, 0, 1], [0, 1, 2, 0, 1]]
    assert lengths(batch).tolist() == [[2, 2, 1, 2, 2], [3, 3, 3, 2, 2]]


def tiny(attention: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    config._attn_implementation = attention
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_documents_are_as_if_alone(attention: str) -> None:
    module = StudentModule(tiny(attention), Assembly([Objective(term="cross_entropy")], total_steps=1))
    documents = [[1, 2, 3, 4], [5, 6], [7, 8, 9]]
    ids, segments = [*range(1, 10)], [0] * 4 + [1] * 2 + [2] * 3
    labels = [-100, 2, 3, 4, -100, 6, -100, 8, 9]
    whole = GlobalBatch(predictions=6, rows=1, micro_batches=1)
    packed = {"input_ids": ids, "labels": labels, "segments": segments, "index": 0}
    wider = {"input_ids": [*ids, 1], "labels": [-100] * 10, "segments": [0] * 10, "index": 1}
    together, _, _ = module(Collator(0)([packed, wider]), 0, whole)
    alone = [module(Collator(0)([row(document, 0)]), 0, whole)[0] for document in documents]
    assert float(together.detach()) == pytest.approx(float(sum(alone).detach()), abs=1e-5)  # type: ignore[union-attr]  not empty


def test_the_loss_is_transformers_own() -> None:
    model = tiny("sdpa")
    module = StudentModule(model, Assembly([Objective(term="cross_entropy")], total_steps=1))
    batch = Collator(0)([row([1, 2, 3, 4, 5], 0), row([6, 7], 1)])
    ours, _, _ = module(batch, 0, GlobalBatch(predictions=5, rows=2, micro_batches=1))
    theirs = model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).loss
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), abs=1e-5)
    ours.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    theirs.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_logits_that_are_scaled_or_capped() -> None:
    config = LlamaConfig()
    assert logit_scale(config) == 1.0
    config.logits_scaling = 8.0
    assert logit_scale(config) == 0.125
    config.logit_scale = 4.0
    assert logit_scale(config) == 0.5
    config.final_logit_softcapping = 30.0
    with pytest.raises(ModelError, match="caps its logits"):
        logit_scale(config)


class Louder(LlamaForCausalLM):
    """Its logits are scaled by what no config names."""

    def forward(self, *args: Any, **options: Any) -> Any:
        output: Any = super().forward(*args, **options)
        output.logits = output.logits * 2.0
        return output


def test_logits_that_are_more_than_a_product_are_refused() -> None:
    model = tiny("sdpa").train()
    check_student(model)
    assert model.training
    with pytest.raises(ModelError, match=r"the logits of Louder are more than a product .*; take another student"):
        check_student(Louder(model.config))


def test_falcon_h1_is_refused() -> None:
    config = FalconH1Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        mamba_d_ssm=16,
        mamba_n_heads=2,
        mamba_d_head=8,
        mamba_d_state=8,
        mamba_chunk_size=8,
        lm_head_multiplier=0.25,
    )
    with pytest.raises(ModelError, match="more than a product of its hidden states"):
        check_student(FalconH1ForCausalLM(config))


def test_one_device_is_used_where_the_trainer_would_take_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class OfTwo(TrainingArguments):
        def __post_init__(self) -> None:
            super().__post_init__()
            self._n_gpu = 2

    monkeypatch.setattr(stage, "TrainingArguments", OfTwo)
    one = Stage(name="s", steps=1, objective=[Objective(term="cross_entropy")])
    args = stage.arguments(one, Student(model="x", compute="float32"), 1, tmp_path)
    assert (args.n_gpu, args.train_batch_size) == (1, args.per_device_train_batch_size)


@pytest.mark.parametrize(
    ("objectives", "may_miss"),
    [
        ([Objective(term="cross_entropy", weight=[(0, 1.0), (5, 0.2)])], False),
        ([Objective(term="cross_entropy", weight=[(0, 0.0), (5, 1.0)])], True),
        ([Objective(term="hidden_cosine"), Objective(term="tea")], True),
        ([Objective(term="tea"), Objective(term="pro")], False),
    ],
)
def test_processes_are_told_when_a_step_may_miss_some_weights(
    objectives: list[Objective], may_miss: bool, tmp_path: Path
) -> None:
    one = Stage(name="s", steps=9, objective=objectives)
    args = stage.arguments(one, Student(model="x", compute="float32"), 9, tmp_path)
    assert args.ddp_find_unused_parameters is may_miss


def test_devices_that_nobody_uses_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    assert together.idle_devices() == 3
    monkeypatch.setattr(together, "is_distributed", lambda: True)
    assert together.idle_devices() == 0


def test_steps_of_a_stage() -> None:
    assert total_steps(100, 32, 7, None) == 7
    assert total_steps(100, 32, None, 2.0) == 7
    assert total_steps(3, 32, None, 0.5) == 1


def test_a_plan_goes_through_epochs_without_a_gap() -> None:
    plan = plan_rows(3, 4, lambda epoch: np.arange(5) + 10 * epoch)
    assert plan.tolist() == [[0, 1, 2, 3], [4, 10, 11, 12], [13, 14, 20, 21]]


def test_sorting_keeps_every_step_its_rows() -> None:
    plan = np.array([[0, 1, 2, 3], [3, 2, 1, 0]])
    assert sort_within_steps(plan, np.array([5, 9, 9, 7])).tolist() == [[1, 2, 3, 0], [2, 1, 3, 0]]


@pytest.mark.parametrize(
    ("batch", "wanted", "processes", "group", "size"),
    [(32, 4, 1, 1, 4), (32, 5, 1, 1, 4), (32, 64, 2, 1, 16), (6, 4, 1, 2, 2), (12, 3, 1, 2, 2), (6, 1, 1, 2, 2)],
)
def test_micro_batches_divide_a_step(batch: int, wanted: int, processes: int, group: int, size: int) -> None:
    assert micro_batch_size(batch, wanted, processes, group) == size


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="a batch_size of 9 cannot be shared evenly by 2 processes; use a multiple of 2"
    ):
        micro_batch_size(9, 4, 2)


def test_groups_are_of_one_size() -> None:
    assert group_size([3.0, 3.0, 5.0, 5.0]) == 2
    with pytest.raises(ConfigError, match=r"groups of one size; here are \[1, 2\]"):
        group_size([3.0, 3.0, 5.0])


@pytest.mark.parametrize(("first", "order"), [(True, ["make", "wait", "wait"]), (False, ["wait", "make", "wait"])])
def test_others_read_what_the_first_has_made(first: bool, order: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(together, "is_first", lambda: first)
    monkeypatch.setattr(together, "wait_for_all", lambda: done.append("wait"))
    assert together.first_alone(lambda: done.append("make") or 5) == 5
    assert done == order


def test_only_whole_checkpoints_count_and_old_ones_go(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "absent") is None
    for step in (3, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert last_checkpoint(tmp_path) is None
    finish_checkpoint(tmp_path / "checkpoint-3")  # half of 10 is from an earlier attempt
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    (tmp_path / "checkpoint-6").mkdir()
    finish_checkpoint(tmp_path / "checkpoint-6")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-6"]
    (tmp_path / "checkpoint-6" / COMPLETE).unlink()
    assert last_checkpoint(tmp_path) is None


def test_shares_add_up_and_may_be_negative() -> None:
    gradients = {"a": [torch.tensor([3.0, 0.0]), None], "b": [torch.tensor([-1.0, 0.0]), torch.tensor([2.0])]}
    found = shares(gradients)  # the sum is (2, 0, 2)
    assert found == {"a": pytest.approx(6 / 8), "b": pytest.approx(2 / 8)}
    assert shares({"a": [torch.tensor([2.0])], "b": [torch.tensor([-1.0])]}) == {"a": 2.0, "b": -1.0}


def test_what_is_only_looked_at_has_no_share() -> None:
    objectives = [Objective(term="entropy"), Objective(term="cross_entropy")]
    module = StudentModule(tiny("sdpa"), Assembly(objectives, total_steps=1))
    batch = Collator(0)([row([1, 2, 3, 4, 5], 0)])
    found = gradient_shares(module, batch, 0, GlobalBatch(predictions=4, rows=1, micro_batches=1), {}, nullcontext)
    assert found == {"cross_entropy": pytest.approx(1.0)}


def test_the_ledger_adds_over_micro_batches_and_averages_over_steps() -> None:
    ledger = Ledger()
    assert ledger.close(torch.device("cpu")) == {}
    for part in (1.0, 2.0, 3.0, 4.0):
        ledger.add(part, {"kl": part / 2}, {"kl": 0.5}, num_tokens=10)
        if part in (2.0, 4.0):
            ledger.step_done()
    values = ledger.close(torch.device("cpu"))
    assert (values["loss"], values["terms/kl"], values["weights/kl"], values["tokens"]) == (5.0, 2.5, 0.5, 40)
