"""The ways that a stage can take: teachers, precisions, frozen parts, other attention, changed data."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from loop_runs import STILL, Ear, losses, questions, recipe, run
from safetensors.torch import load_file
from teacher_server import teacher_server
from transformers import AutoModelForCausalLM, AutoTokenizer

from tapster.runtime.errors import ConfigError
from tapster.training.loop.module import StudentModule
from tapster.training.recipe.schema import Recipe

CE: list[dict[str, Any]] = [{"term": "cross_entropy"}]
SHORT: dict[str, Any] = {"steps": 4, "save_steps": None, "objective": CE}
KL = [{"term": "forward_kl"}, {"term": "cross_entropy", "weight": 0.1}]


def values_of(out: Path, name: str) -> list[float]:
    return [values[name] for values in losses(out).values()]


def learnt(out: Path) -> list[str]:
    """The answers that a run was trained on, as text."""
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    files: list[Any] = [Dataset.from_file(str(path)) for path in (out / "data").glob("rows-*.arrow")]
    return [tokenizer.decode([label for label in row["labels"] if label >= 0]) for rows in files for row in rows]


def test_a_step_without_a_weight_is_refused_as_soon_as_steps_are_known(data: Path, tmp_path: Path) -> None:
    warm = [{"term": "cross_entropy", "weight": [[1, 0.0], [3, 1.0]]}]
    with pytest.raises(ConfigError, match="all weights are 0 at step 0, which would teach nothing"):
        run(recipe(data, SHORT | {"steps": None, "epochs": 1.0, "objective": warm}), tmp_path / "out")


# Teachers


def test_stored_distributions_are_as_good_as_a_teacher_in_memory(data: Path, teacher: Path, tmp_path: Path) -> None:
    online = {"kind": "online", "model": str(teacher)}
    cached = {"kind": "logit-cache", "model": str(teacher), "top_k": 256}
    stages = (SHORT | {"objective": KL}, SHORT | {"name": "packed", "objective": KL, "data": _packed(data)})
    for name, table in (("online", online), ("cached", cached)):
        run(recipe(data, *stages, teacher=table, scratch=STILL), tmp_path / name)
    for kind in ("train", "eval"):
        stored = losses(tmp_path / "cached", kind)
        for step, values in losses(tmp_path / "online", kind).items():
            assert stored[step] == pytest.approx(values, rel=0.03, abs=2e-3), step
    falling = values_of(tmp_path / "online", "terms/forward_kl")
    assert falling[-1] < falling[0]
    state = json.loads((tmp_path / "cached" / "state.json").read_text())
    assert state["stages"]["02-packed"]["result"]["teacher"]["kind"] == "logit-cache"


def _packed(data: Path) -> dict[str, Any]:
    return {"train": [str(data)], "eval_rows": 4, "packing": True}


def test_a_student_that_is_its_teacher_has_nothing_to_learn(data: Path, teacher: Path, tmp_path: Path) -> None:
    whole = recipe(
        data,
        SHORT | {"steps": 1, "objective": KL[:1]},
        teacher={"kind": "online", "model": "student"},
        model=str(teacher),
        scratch=None,
        tokenizer=None,
    )
    run(whole, tmp_path / "run")
    assert values_of(tmp_path / "run", "terms/forward_kl") == pytest.approx([0.0], abs=1e-5)


def test_a_text_cache_answers_whatever_the_terms_are(data: Path, tmp_path: Path) -> None:
    """Cross-entropy reads no column of the cache, and learns its answers all the same; unless told otherwise."""
    with teacher_server() as server:
        table = {"kind": "text-cache", "endpoint": server.url, "max_tokens": 32}
        own = SHORT | {"name": "own", "data": {"train": [str(data)], "eval_rows": 4, "answers": "own"}}
        run(recipe(data, SHORT, teacher=table), tmp_path / "taught")
        run(recipe(data, own, teacher=table), tmp_path / "own")
        asked = sum(server.asked.values())
    assert {answer[:8] for answer in learnt(tmp_path / "taught")} == {"WHAT IS "}
    assert all("plus" in answer for answer in learnt(tmp_path / "own"))
    assert asked == len({json.loads(line)["messages"][0]["content"] for line in data.read_text().splitlines()})
    assert not (tmp_path / "own" / "teacher").exists()


def test_questions_are_all_that_a_text_cache_needs(tmp_path: Path) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text("".join(json.dumps({"prompt": f"question {number}"}) + "\n" for number in range(8)))
    with teacher_server() as server:
        table = {"kind": "text-cache", "endpoint": server.url, "max_tokens": 32}
        run(recipe(asked, SHORT, teacher=table), tmp_path / "run")
    assert {answer[:8] for answer in learnt(tmp_path / "run")} == {"QUESTION"}


def test_ranked_answers_of_a_file_are_held_out_whole(tmp_path: Path) -> None:
    ranked = tmp_path / "ranked.jsonl"
    rows = [
        {"prompt": f"question {group}", "completion": text, "group": group, "rank": rank}
        for group in range(20)
        for rank, text in enumerate(("right", "wrong"))
    ]
    ranked.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(recipe(ranked, SHORT | {"objective": [{"term": "pro"}]}), tmp_path / "run")
    assert len(values_of(tmp_path / "run", "terms/pro")) > 0


# Data that change


def test_other_data_than_before_are_noticed(data: Path, tmp_path: Path) -> None:
    mine = questions(tmp_path / "mine.jsonl")
    out, before = tmp_path / "run", mine.read_text()
    run(recipe(mine, SHORT), out)
    mine.write_text(before + before.splitlines()[0] + "\n")
    with pytest.raises(ConfigError, match=r"mine.jsonl has changed since stage 01-sft was done with it; .*--force"):
        run(recipe(mine, SHORT), out)
    mine.write_text(before)
    run(recipe(mine, SHORT), out)
    mine.unlink()
    run(recipe(mine, SHORT), out)  # what is done needs its data no more
    questions(mine, count=30)
    ear = Ear()
    run(recipe(mine, SHORT), out, force=True, display=ear)
    assert any("weights are trained" in line for line in ear.heard), "begun anew"


def test_data_that_change_while_a_stage_is_stopped(data: Path, tmp_path: Path) -> None:
    class Stop(BaseException):
        pass

    class AfterThree(Ear):
        def step(self, step: int) -> None:
            if step == 3:
                raise Stop

    mine = questions(tmp_path / "mine.jsonl")
    saving = SHORT | {"save_steps": 2}
    with pytest.raises(Stop):
        run(recipe(mine, saving), tmp_path / "run", display=AfterThree())
    questions(mine, count=41)
    with pytest.raises(ConfigError, match=r"mine.jsonl has changed since stage 01-sft was begun with it"):
        run(recipe(mine, saving), tmp_path / "run")


def test_other_rows_of_the_same_files_are_noticed(tmp_path: Path) -> None:
    from tapster.training.loop.state import State

    state = State(tmp_path)
    (tmp_path / "stages" / "01-a" / "round-1").mkdir(parents=True)
    state.begin("01-a", "x")
    state.note_data("01-a", [], "one")
    State(tmp_path).check_rows("01-a", "one")
    with pytest.raises(ConfigError, match="the data of stage 01-a make other rows than when it was begun"):
        State(tmp_path).check_rows("01-a", "two")


# What changes nothing


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "run"
    run(_dual(data), out)
    return out


def _dual(data: Path, **more: Any) -> Recipe:
    """With noise and dropout, whose random numbers nothing else may take, and a dual side that gathers sums."""
    ads = {"term": "ads", "correct_top_k": 0, "dual_every": 1, "decay": 0.5}
    stage = SHORT | {"steps": 6, "objective": [ads, *CE], "neftune": {"alpha": 5.0}} | more
    return recipe(data, stage, teacher={"kind": "online", "model": "student"})


@pytest.mark.parametrize(
    "more",
    [{"eval_steps": 1}, {"gradient_share_steps": 1}, {"gradient_checkpointing": True}],
    ids=lambda more: next(iter(more)),
)
def test_looking_on_changes_nothing(more: dict[str, Any], data: Path, plain: Path, tmp_path: Path) -> None:
    """Evaluations in between leave nothing in what the dual side has gathered; measured shares take no noise away;
    hidden states that are computed twice are the same."""
    run(_dual(data, **more), tmp_path / "run")
    found, expected = losses(tmp_path / "run"), losses(plain)
    for step, values in expected.items():
        shares = {name: value for name, value in found[step].items() if name.startswith("gradient_share/")}
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-4) if "gradient_share_steps" in more else not shares
        others = {name: value for name, value in found[step].items() if name not in shares}
        assert others == pytest.approx(values, abs=1e-6), step
    ours, theirs = (load_file(out / "model" / "model.safetensors") for out in (tmp_path / "run", plain))
    assert all(tensor.equal(ours[name]) for name, tensor in theirs.items())


def test_every_term_is_logged_with_its_weight_and_what_it_has_learnt(plain: Path) -> None:
    for values in losses(plain).values():
        assert {"terms/ads", "weights/ads", "terms/cross_entropy", "weights/cross_entropy"} <= values.keys()
    multipliers = values_of(plain, "state/ads/lambda")
    assert len(set(multipliers)) > 2, "the dual side does learn"
    assert [step for _, step in losses(plain, "eval")] == [0, 6], "on held-out rows, first and last"


# Precisions, and what is trained


def test_bfloat16_over_float32_masters(data: Path, tmp_path: Path) -> None:
    outs = [tmp_path / compute for compute in ("float32", "bfloat16")]
    for out in outs:
        ear = Ear()
        run(recipe(data, SHORT, compute=out.name, masters="float32", scratch=STILL), out, display=ear)
        assert any("kept in float32" in line for line in ear.heard)
    for one, other in zip(*(losses(out).values() for out in outs), strict=True):
        assert one["loss"] != other["loss"], "computed in another precision"
        assert one["loss"] == pytest.approx(other["loss"], rel=0.02)


def test_shares_are_of_what_is_trained(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same precision, and so in the same memory."""
    real, mixed = StudentModule.look, []

    def look(self: StudentModule, *args: Any, **options: Any) -> Any:
        mixed.append(torch.is_autocast_enabled("cpu"))
        return real(self, *args, **options)

    monkeypatch.setattr(StudentModule, "look", look)
    stage = SHORT | {"steps": 1, "gradient_share_steps": 1, "objective": [*CE, {"term": "mixce"}]}
    out = tmp_path / "run"
    run(recipe(data, stage, compute="bfloat16"), out)
    assert len(mixed) > 1
    assert all(mixed)
    [shares] = ({name: value for name, value in one.items() if "share" in name} for one in losses(out).values())
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-4)


def test_masters_that_would_lose_updates_are_warned_of(data: Path, tmp_path: Path) -> None:
    ear, slow = Ear(), SHORT | {"steps": 1, "optimizer": {"lr": 1e-6}}
    run(recipe(data, slow, compute="bfloat16", masters="as-saved"), tmp_path / "run", display=ear)
    assert any(line.startswith("warning: ") and "is rounded away in bfloat16" in line for line in ear.heard)


def test_frozen_parts_stay_as_they_are(data: Path, tmp_path: Path) -> None:
    run(recipe(data, SHORT | {"frozen": ["embed_tokens", r"layers\.0\."]}), tmp_path / "run")
    before = load_file(tmp_path / "run" / "student" / "model.safetensors")
    after = load_file(tmp_path / "run" / "stages" / "01-sft" / "model" / "model.safetensors")
    moved = {name for name, tensor in before.items() if not tensor.equal(after[name])}
    assert moved == {name for name in before if "embed_tokens" not in name and "layers.0." not in name}


def test_low_rank_updates_are_merged(data: Path, tmp_path: Path) -> None:
    lora = {"rank": 2, "alpha": 4.0, "targets": ["q_proj"]}
    run(recipe(data, SHORT | {"lora": lora, "optimizer": {"lr": 1e-2}}), tmp_path / "run")
    before = load_file(tmp_path / "run" / "student" / "model.safetensors")
    after = load_file(tmp_path / "run" / "stages" / "01-sft" / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    assert {name for name, tensor in before.items() if not tensor.equal(after[name])} == {
        name for name in before if "q_proj" in name
    }


# Kimi Delta Attention


def test_other_attention_is_aligned_then_distilled(data: Path, teacher: Path, tmp_path: Path) -> None:
    """The second stage begins with what the first one saved, and a recipe may begin with such a model."""
    align = SHORT | {
        "name": "align",
        "frozen": ["embed_tokens", "lm_head", r"norm\.weight", "mlp"],
        "objective": [{"term": "hidden_cosine"}],
        "eval_steps": None,
    }
    distil = SHORT | {"name": "distil", "steps": 3, "objective": KL}
    table = {"kind": "online", "model": str(teacher)}
    source = {"model": str(teacher), "scratch": None, "tokenizer": None}
    run(recipe(data, align, distil, teacher=table, kda={}, **source), tmp_path / "run")
    held_out = losses(tmp_path / "run", "eval")
    aligned, begun = held_out["align", 4], held_out["distil", 0]
    assert aligned["terms/hidden_cosine"] < held_out["align", 0]["terms/hidden_cosine"]
    assert begun["terms/cross_entropy"] == pytest.approx(aligned["terms/cross_entropy"], abs=1e-5)
    made = tmp_path / "run" / "model"
    model = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32)
    assert (model.config.model_type, model.config.num_hidden_layers) == ("kimi_linear", 3)
    on = recipe(data, distil, teacher=table, **source | {"model": str(made)})
    run(on, tmp_path / "on")
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "on" / "model", dtype=torch.float32)
    assert after.config.num_hidden_layers == 3, "no layer more with each run"
    assert losses(tmp_path / "on", "eval")["distil", 0]["terms/cross_entropy"] == pytest.approx(
        held_out["distil", 3]["terms/cross_entropy"], abs=0.02
    )
