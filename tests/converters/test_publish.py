"""The model card, the chart and the measured speeds of a ladder."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from tapster.converters.proof.figures import Divergence, Figures
from tapster.converters.publish.card import CardFacts, model_card, shown_size
from tapster.converters.publish.chart import draw_chart
from tapster.converters.publish.entries import Entry, choices, family, is_beaten, recommended
from tapster.converters.publish.speed import Machine, Speed, measure_speed, this_machine
from tapster.runtime.errors import ConversionError, ModelError
from tapster.runtime.profile import load_profile

# Sizes and divergences as a model of some hundred million parameters has them: many points close together.
LADDER = {
    "IQ1_S": (58, 2.9), "IQ2_XXS": (66, 1.31), "IQ2_M": (74, 0.71), "Q2_K": (81, 0.52), "IQ3_XXS": (80, 0.36),
    "Q3_K_S": (83, 0.31), "IQ3_M": (86, 0.24), "Q3_K_M": (89, 0.17), "Q3_K_L": (93, 0.15), "IQ4_XS": (90.5, 0.074),
    "Q4_0": (92, 0.11), "IQ4_NL": (92.4, 0.072), "Q4_K_S": (102, 0.061), "Q4_1": (98.4, 0.085), "Q4_K_M": (105, 0.048),
    "Q5_K_S": (110, 0.021), "Q5_0": (105.6, 0.03), "Q5_K_M": (112, 0.019), "Q5_1": (112.3, 0.024),
    "Q6_K": (138, 0.0051), "Q8_0": (144.8, 0.0012),
}  # fmt: skip


def divergence(mean: float) -> Divergence:
    figures = Figures(
        tokens=8176, mean=mean, low=mean * 0.9, high=mean * 1.12, median=mean / 3, p90=mean * 2, p99=mean * 8,
        p999=mean * 25, maximum=mean * 60, top1=1 / (1 + mean), perplexity=9.1, reference_perplexity=9.0,
        perplexity_ratio=9.1 / 9,
    )  # fmt: skip
    return Divergence(Path("x.gguf"), Path("Tiny-BF16.gguf"), 512, 16, figures, figures, figures)


def entry(type_name: str, megabytes: float, mean: float | None, speed: Speed | None = None) -> Entry:
    found = None if mean is None else divergence(mean)
    return Entry(Path(f"Tiny-{type_name}.gguf"), type_name, int(megabytes * 1e6), megabytes / 17, found, speed)


@pytest.fixture
def ladder() -> list[Entry]:
    entries = [entry(name, size, mean, Speed(910.4, 44.07, 2)) for name, (size, mean) in LADDER.items()]
    return [*entries, entry("BF16", 270.9, None, Speed(400, 9.97, 2))]


def test_what_to_choose_follows_the_rule(ladder: list[Entry]) -> None:
    found = {purpose: one.type for purpose, _, one in choices(ladder)}
    assert found == {
        "Hardly to be told from 16 bits": "Q6_K",
        "Recommended": "Q4_K_M",
        "For little memory": "Q3_K_M",
        "The least that is of use": "IQ3_XXS",
    }
    assert recommended(ladder).type == "Q4_K_M"
    for _, threshold, one in choices(ladder):
        assert one.divergence
        assert one.divergence.overall.mean <= threshold
        for other in ladder:
            if other.divergence and other.divergence.overall.mean <= threshold:
                assert other.file_bytes >= one.file_bytes
    assert {one.type for one in ladder if is_beaten(one, ladder)} >= {"Q2_K", "Q4_0", "Q5_1"}
    assert not is_beaten(ladder[-1], ladder)


def test_when_nothing_is_good_enough_the_best_is_recommended() -> None:
    bad = [entry("Q2_K", 10, 3.0), entry("Q3_K_M", 12, 1.0)]
    assert choices(bad) == []
    assert recommended(bad).type == "Q3_K_M"
    assert recommended([entry("F16", 20, None), entry("F32", 40, None)]).type == "F32"


@pytest.fixture
def facts(ladder: list[Entry], demo_model: Path) -> CardFacts:
    return CardFacts(
        name="Tiny",
        profile=load_profile(demo_model),
        entries=ladder,
        base_model="acme/Tiny",
        front={"license": "apache-2.0", "language": ["en", "no"], "tags": ["chat", "gguf"], "base_model": "acme/Older"},
        repo="acme/Tiny-GGUF",
        machine=Machine("Some CPU @ 2 GHz", 2),
        imatrix="the calibration text of tapster",
        chart=Path("divergence.png"),
        versions={"tapster": "0.1.0", "llama_cpp_python": "0.3.36"},
    )


def test_the_card_has_what_the_hub_reads(facts: CardFacts) -> None:
    _, head, body = model_card(facts).split("---\n", 2)
    front = yaml.safe_load(head)
    assert front == {
        "license": "apache-2.0",
        "language": ["en", "no"],  # not false
        "base_model": "acme/Tiny",
        "base_model_relation": "quantized",
        "library_name": "gguf",
        "pipeline_tag": "text-generation",
        "tags": ["gguf", "llama.cpp", "quantized", "imatrix", "chat"],
    }
    assert body.lstrip().startswith("# Tiny: GGUF")


def test_the_table_has_every_file_and_figure(facts: CardFacts) -> None:
    card = model_card(facts)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines() if line.startswith("| [")
    ]
    assert len(rows) == len(LADDER) + 1
    by_type = {row[1]: row for row in rows}
    assert by_type["Q4_K_M"] == [
        "[Tiny-Q4_K_M.gguf](Tiny-Q4_K_M.gguf)", "Q4_K_M", "6.18", "105 MB",
        "0.048 ± 0.005", "1.2", "95.4 %", "910", "44",
    ]  # fmt: skip
    assert by_type["BF16"][4:] == ["–", "–", "–", "400", "10.0"]
    for text in (
        "Some CPU @ 2 GHz, 2 cores, 2 threads", "Tiny-BF16.gguf", "8176 positions", "![Divergence against size]",
        "tapster serve Tiny-Q4_K_M.gguf", "llama-server -m Tiny-Q4_K_M.gguf --jinja -r '<|im_end|>'",
        "ollama run hf.co/acme/Tiny-GGUF:Q4_K_M", "An answer ends at `<|im_end|>`",
        "**Recommended**: `Tiny-Q4_K_M.gguf`",
    ):  # fmt: skip
        assert text in card


def test_a_card_without_measurements(facts: CardFacts, tiny_model: Path) -> None:
    bare = replace(facts, profile=load_profile(tiny_model), entries=[entry("F16", 20, None)], imatrix=None, chart=None,
                   base_model=None, front={}, machine=None)  # fmt: skip
    card = model_card(bare)
    assert "base_model" not in card
    assert "Prefill" not in card
    assert "KLD is the" not in card
    assert "no stop string is needed" in card


def test_sizes_are_shown_in_three_digits() -> None:
    assert [shown_size(size) for size in (98_362_432, 1_500_000, 12_345_678_901)] == ["98.4 MB", "1.5 MB", "12.35 GB"]


@pytest.fixture
def _matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("no matplotlib: pip install 'tapster[publish]'")


@pytest.mark.usefixtures("_matplotlib")
def test_the_chart_can_be_read(ladder: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path: (figures.append(self), save(self, path))[1])
    paths = draw_chart(ladder, "Tiny: what each file lost", tmp_path)
    assert [path.name for path in paths] == ["divergence.png", "divergence.svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert "<svg" in paths[1].read_text()
    [axes] = figures[0].axes
    assert axes.get_yscale() == "log"
    renderer = figures[0].canvas.get_renderer()  # type: ignore[attr-defined]
    labels = {label.get_text(): label.get_window_extent(renderer) for label in axes.texts}
    assert set(labels) == set(LADDER)
    boxes = list(labels.values())
    assert not any(boxes[a].overlaps(boxes[b]) for a in range(len(boxes)) for b in range(a))
    for megabytes, mean in LADDER.values():
        x, y = axes.transData.transform((megabytes, mean))
        assert not any(box.contains(x, y) for box in boxes)
        assert axes.bbox.contains(x, y)


@pytest.mark.usefixtures("_matplotlib")
def test_a_chart_of_nothing_is_not_drawn(tmp_path: Path, ladder: list[Entry]) -> None:
    assert draw_chart([entry("F16", 20, None)], "x", tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConversionError, match="cannot write the chart"):
        draw_chart(ladder[:2], "x", tmp_path / "none")


def test_families() -> None:
    assert [family(name) for name in ("Q4_K_M", "IQ4_XS", "Q8_0", "BF16")] == ["K", "IQ", "other", "other"]


def test_the_speed_of_a_model(tiny_model: Path, tmp_path: Path) -> None:
    speed = measure_speed(tiny_model, threads=1)
    assert speed.threads == 1
    assert np.isfinite([speed.prefill, speed.decode]).all()
    assert min(speed.prefill, speed.decode) > 0
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(tiny_model.read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot load"):
        measure_speed(damaged)


def test_the_machine_is_named_by_its_processor(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: Quick 9000 @ 3.1GHz\n")
    assert this_machine(path).processor == "Quick 9000 @ 3.1GHz"
    assert this_machine(tmp_path / "none").processor
    assert str(Machine("A", 1)) == "A, 1 core"
