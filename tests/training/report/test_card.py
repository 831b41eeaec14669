"""The picture and the model card, from the records of a run."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tapster.training.recipe.read import read_recipe
from tapster.training.recipe.resolved import to_toml
from tapster.training.report.card import write_card
from tapster.training.report.metrics import Metrics
from tapster.training.report.picture import draw_losses

SOURCES = [
    {"source": "mine.jsonl", "files": {"mine.jsonl": "ab" * 32}},
    {"source": "hub:org/data:main:train", "revision": "c0ffee", "licence": "mit"},
    {"source": "hub:org/data:main:train", "revision": "c0ffee", "licence": "mit"},
]


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    with Metrics(tmp_path, tensorboard=False) as writer:
        writer.begin("distil", 20)
        writer.log(0, {"loss": 2.5, "terms/cwce": 2.25, "terms/tea": 0.0}, "eval")
        for step in range(1, 21):
            writer.log(step, {"loss": 3 / step, "terms/cwce": 2 / step, "terms/tea": 1e-4 * step})
        writer.log(20, {"loss": 0.5, "terms/cwce": 0.25, "terms/tea": 0.125}, "eval")
    return tmp_path / "metrics.jsonl"


def front_matter(text: str) -> dict[str, Any]:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_a_picture_of_every_stage(metrics: Path, tmp_path: Path) -> None:
    picture = tmp_path / "loss.png"
    assert draw_losses(metrics, picture)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    before = picture.stat().st_size
    with Metrics(tmp_path, tensorboard=False) as writer:
        writer.begin("more", 1)
        writer.log(1, {"loss": 1.0})
    assert draw_losses(metrics, picture)
    assert picture.stat().st_size > before


def test_no_picture_of_nothing(tmp_path: Path) -> None:
    assert not draw_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    with Metrics(tmp_path, tensorboard=False) as writer:
        writer.begin("sft", 1)
        writer.log(1, {"loss": float("nan")})
    assert not draw_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()


def test_a_card_says_what_went_in_and_what_came_out(metrics: Path, tmp_path: Path) -> None:
    recipe = read_recipe("dante", small=True, data=["mine.jsonl"])
    student, model = tmp_path / "student", tmp_path / "model"
    student.mkdir()
    model.mkdir()
    (student / "README.md").write_text("---\nlicense: apache-2.0\n---\n# it\n")
    draw_losses(metrics, tmp_path / "loss.png")
    card = write_card(
        model,
        recipe,
        metrics=metrics,
        sources=SOURCES,
        teacher={"model": "demo", "engine": "tapster", "seed": None, "sha256": "0f" * 16},
        student=student,
        picture=tmp_path / "loss.png",
    )
    text = card.read_text(encoding="utf-8")
    values = front_matter(text)
    assert values["license"] == "apache-2.0"
    assert values["datasets"] == ["org/data"]
    assert values["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "Trained by tapster from `HuggingFaceTB/SmolLM2-135M-Instruct` (dequantized from Q4_1): `distil`" in text
    assert "distillation" in values["tags"]
    assert "| distil | loss |" not in text, "its weights follow a schedule"
    assert "| distil | tea | 0 (step 0) | 0.125 (step 20) |" in text
    assert "| distil | cwce | 2.25 (step 0) | 0.25 (step 20) |" in text
    assert f"`mine.jsonl`: SHA-256 `{'ab' * 32}`" in text
    assert text.count("revision `c0ffee`") == 1
    assert "* `hub:org/data:main:train`: mit" in text
    assert "* model: `HuggingFaceTB/SmolLM2-135M-Instruct`" in text
    assert f"* fingerprint of its files: `{'0f' * 16}`" in text
    assert "seed" not in text.split("## Teacher")[1].split("##")[0]
    assert "![The loss of each stage](loss.png)" in text
    assert (model / "loss.png").is_file()
    assert tomllib.loads(text.split("```toml\n")[1].split("```")[0]) == tomllib.loads(to_toml(recipe))
    assert "torch " in text.split("Made with")[1]


@pytest.mark.parametrize("weights", [[0.5, 0.5], [[[0, 0.5], [9, 0.5]], 1.0]])
def test_the_loss_is_told_where_it_means_the_same_at_both_ends(
    metrics: Path, tmp_path: Path, weights: list[object]
) -> None:
    terms = [f"{{term = '{term}', weight = {weight}}}" for term, weight in zip(("cwce", "tea"), weights, strict=True)]
    recipe = read_recipe("dante", overrides=[("stages.distil.objective", f"[{', '.join(terms)}]")])
    text = write_card(tmp_path, recipe, metrics=metrics).read_text(encoding="utf-8")
    assert "| distil | loss | 2.5 (step 0) | 0.5 (step 20) |" in text


def test_a_card_does_not_say_where_the_teacher_was_asked(tmp_path: Path) -> None:
    recipe = read_recipe("dante", overrides=[("teacher.endpoint", "http://gpu7.example.net/v1")])
    text = write_card(tmp_path, recipe, metrics=tmp_path / "none").read_text(encoding="utf-8")
    assert "gpu7" not in text
    assert "give one with `--teacher URL`" in text


def test_a_card_says_how_the_model_is_used(tmp_path: Path) -> None:
    recipe = read_recipe("kodalite", small=True)
    text = write_card(tmp_path, recipe, metrics=tmp_path / "none").read_text(encoding="utf-8")
    assert 'tokenizer("The capital of Sweden is", return_tensors="pt")' in text
    assert "generate(**inputs, max_new_tokens=256)" in text
    (tmp_path / "chat_template.jinja").touch()
    (tmp_path / "generation_config.json").write_text('{"stop_strings": ["<|end|>"]}')
    text = write_card(tmp_path, recipe, metrics=tmp_path / "none").read_text(encoding="utf-8")
    assert "tokenizer.apply_chat_template(messages" in text
    assert "generate(**inputs, max_new_tokens=256, tokenizer=tokenizer)" in text
    assert "ends in the text `<|end|>`" in text
    assert "$ tapster serve FOLDER" in text


def test_a_card_without_anything_to_say(tmp_path: Path) -> None:
    recipe = read_recipe("kodalite", small=True)
    text = write_card(tmp_path, recipe, metrics=tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
    assert "license" not in front_matter(text)
    assert "from random weights" in text
    for heading in ("## Evaluation", "## Data", "## Teacher", "## Licences", "!["):
        assert heading not in text


@pytest.mark.parametrize("readme", ["no front matter", "---\n: [\n---\n", "---\nlicense: [a, b]\n---\n", "---\n"])
def test_a_licence_that_cannot_be_read_is_not_stated(tmp_path: Path, readme: str) -> None:
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "README.md").write_text(readme)
    recipe = read_recipe("dante")
    card = write_card(tmp_path, recipe, metrics=tmp_path / "none", student=tmp_path / "student")
    text = card.read_text(encoding="utf-8")
    assert front_matter(text)["base_model"] == "HuggingFaceTB/SmolLM3-3B"
    assert "the model it began as, `HuggingFaceTB/SmolLM3-3B`: not stated" in text


def test_a_card_tells_of_rounds_of_self_teaching(tmp_path: Path) -> None:
    rounds = [{"number": 1, "questions": 24, "answers": 95, "right": 7, "pairs": 6}]
    rounds.append({"number": 2, "questions": 24, "answers": 96, "right": 11, "pairs": 9})
    card = write_card(tmp_path, read_recipe("memphis"), metrics=tmp_path / "none", rounds=rounds)
    text = card.read_text(encoding="utf-8")
    assert "## Self-teaching" in text
    assert "| 1 | 24 | 95 | 7 | 6 |\n| 2 | 24 | 96 | 11 | 9 |\n" in text


def test_a_picture_has_entropies_and_plain_fine_tuning(tmp_path: Path) -> None:
    hard, easy = "state/ads/entropy_hard", "state/ads/entropy_easy"
    sizes = {}
    for name, with_plain in (("alone", False), ("beside", True)):
        out = tmp_path / name
        with Metrics(out, tensorboard=False) as writer:
            for stage in ("sharpen", "sharpen-sft") if with_plain else ("sharpen",):
                writer.begin(stage, 2)
                for step in (0, 2):
                    values = {
                        "loss": 2.0 - step / 2,
                        "terms/cross_entropy": 1.0,
                        "terms/ads": 0.1,
                        hard: 2.0,
                        easy: 1.0,
                    }
                    writer.log(step, values, "eval")
        assert draw_losses(out / "metrics.jsonl", out / "loss.png")
        data = (out / "loss.png").read_bytes()
        sizes[name] = (int.from_bytes(data[16:20]), int.from_bytes(data[20:24]))
    assert sizes["alone"] == sizes["beside"]  # plain fine-tuning is in the stage's own parts
    assert sizes["alone"][0] == pytest.approx(3 * 6.5 * 150, abs=1)
