"""The model card, the chart and the measured speeds of a ladder."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import yaml
from gguf_copy import copy_gguf

from tapster.converters.artifact import Artifact
from tapster.converters.options import ConvertOptions
from tapster.converters.progress import Silent
from tapster.converters.proof.figures import Divergence, Figures, MeasuredText
from tapster.converters.proof.proof import prove, unverified
from tapster.converters.proof.source import gguf_source
from tapster.converters.publish import speed as speed_module
from tapster.converters.publish.card import CardFacts, model_card, shown_size
from tapster.converters.publish.chart import draw_chart
from tapster.converters.publish.entries import Entry, choices, family, is_beaten, recommended
from tapster.converters.publish.publish import earlier_entries, entry_of, publish
from tapster.converters.publish.speed import Machine, Speed, measure_speed, this_machine
from tapster.converters.source import GGUFSource
from tapster.converters.targets import Target
from tapster.runtime.chat.builtin import builtin_source
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
    text = MeasuredText("tapster's held-out text", "00" * 32, 40, 8192)
    return Divergence(Path("x.gguf"), Path("Tiny-BF16.gguf"), 512, 16, figures, figures, figures, text)


def entry(type_name: str, megabytes: float, mean: float | None, speed: Speed | None = None) -> Entry:
    found = None if mean is None else divergence(mean)
    return Entry(Path(f"Tiny-{type_name}.gguf"), type_name, int(megabytes * 1e6), megabytes / 17, found, speed)


@pytest.fixture
def ladder() -> list[Entry]:
    entries = [entry(name, size, mean, Speed(910.4, 44.07, 2)) for name, (size, mean) in LADDER.items()]
    matrix = {"file": "Tiny-imatrix.gguf", "sha256": "00" * 32}
    entries = [replace(one, imatrix=matrix if one.type in ("Q4_K_M", "IQ1_S") else None) for one in entries]
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


def test_the_card_copies_texts_and_lists_of_texts_only(facts: CardFacts) -> None:
    """An alias costs a few bytes in the source's card and doubles, written out."""
    levels = "".join(f"a{level}: &a{level} [*a{level - 1}, *a{level - 1}]\n" for level in range(1, 60))
    bomb = f"a0: &a0 [x, x]\n{levels}language: *a59\ntags: [chat, *a59, 7]\nlicense: *a59\nbase_model: *a59\n"
    long = f"pipeline_tag: [&t {'x' * 5000}{', *t' * 5000}]\nlicense_name: {{mine: yes}}\nlicense_link: LICENSE\n"
    card = model_card(replace(facts, base_model=None, front=yaml.safe_load(bomb + long)))
    assert yaml.safe_load(card.split("---\n", 2)[1]) == {
        "license_link": "LICENSE",
        "library_name": "gguf",
        "pipeline_tag": "text-generation",
        "tags": ["gguf", "llama.cpp", "quantized", "imatrix", "chat"],
    }


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
        "Some CPU @ 2 GHz, 2 cores, 2 threads", "Tiny-BF16.gguf", "8176 positions of tapster's held-out text",
        "medians of 3 runs",
        "Made with the importance matrix `Tiny-imatrix.gguf`: IQ1_S, Q4_K_M.", "![Divergence against size]",
        "tapster serve Tiny-Q4_K_M.gguf", "llama-server -m Tiny-Q4_K_M.gguf --jinja -r '<|im_end|>'",
        "ollama run hf.co/acme/Tiny-GGUF:Q4_K_M", "An answer ends at `<|im_end|>`",
        "**Recommended**: `Tiny-Q4_K_M.gguf`",
    ):  # fmt: skip
        assert text in card


def test_a_card_without_measurements(facts: CardFacts, tiny_model: Path) -> None:
    bare = replace(facts, profile=load_profile(tiny_model), entries=[entry("F16", 20, None)], chart=None,
                   base_model=None, front={}, machine=None)  # fmt: skip
    card = model_card(bare)
    assert "base_model" not in card
    assert "Prefill" not in card
    assert "KLD is the" not in card
    assert "no stop string is needed" in card
    assert "imatrix" not in card


def test_every_stop_is_given_to_llama_server(facts: CardFacts) -> None:
    card = model_card(replace(facts, profile=replace(facts.profile, stop_strings=("it's over",))))
    assert "--jinja -r '<|im_end|>' -r 'it'\\''s over'\n" in card


def test_tensors_of_another_type_are_told(facts: CardFacts) -> None:
    odd = replace(
        entry("Q2_K", 81, 0.5), fallbacks={"a": "Q8_0", "b": "Q4_0"}, tensors={"F32": 9, "Q4_0": 1, "Q8_0": 1}
    )
    some = replace(entry("Q4_K_M", 105, 0.05), fallbacks={"a": "Q5_0"}, tensors={"F32": 9, "Q4_K": 5, "Q5_0": 1})
    card = model_card(replace(facts, entries=[odd, some]))
    rows = "their rows are no whole blocks"
    assert f"* `Tiny-Q2_K.gguf`: **no tensor is Q2_K**. 2 tensors are Q4_0 or Q8_0: {rows}.\n" in card
    assert f"* `Tiny-Q4_K_M.gguf`: 1 tensor is Q5_0: {rows}.\n" in card
    assert "whole blocks" not in model_card(facts)


def test_other_measurements_are_not_compared(facts: CardFacts) -> None:
    first, second = entry("Q4_0", 90, 0.1), entry("Q8_0", 140, 0.001)
    assert second.divergence
    other = replace(second, divergence=replace(second.divergence, reference=Path("Tiny-F16.gguf")))
    assert "not to be compared: Tiny-Q8_0.gguf." in model_card(replace(facts, entries=[first, other]))
    assert "not to be compared" not in model_card(replace(facts, entries=[first, second]))


def test_what_was_proved_before_is_published_too(tmp_path: Path) -> None:
    def put(name: str, **changes: object) -> None:
        (tmp_path / f"{name}.gguf").write_bytes(b"x" * 100)
        found = divergence(0.05)
        record = {
            "proof_version": 1,
            "verified": True,
            "passed": True,
            "artifact": {"name": f"{name}.gguf", "type": "Q4_0", "bytes": 100, "bits_per_weight": 4.5,
                         "fallbacks": {"a": "F16"}},
            "source": {"name": "Tiny"},
            "recipe": {"imatrix": {"file": "m.gguf"}},
            "checks": {"divergence": {"measured": True, **found.to_json()},
                       "tensors": {"types": {"Q4_0": {"tensors": 3}}}},
        }  # fmt: skip
        (tmp_path / f"{name}.proof.json").write_text(json.dumps(record | changes))

    put("Tiny-Q4_0")
    put("Tiny-F16", source={"name": "Tiny-BF16.gguf"})
    put("Tiny-Q8_0")
    put("failed", passed=False)
    put("other", source={"name": "Other"})
    put("later", proof_version=2)
    put("cut")
    (tmp_path / "cut.gguf").write_bytes(b"x")
    put("gone")
    (tmp_path / "gone.gguf").unlink()
    (tmp_path / "none.proof.json").write_text("[]")
    (tmp_path / "unverified.proof.json").write_text('{"artifact": {"name": "x"}, "verified": false}')
    put("Tiny-Q2_K", verified=False)
    found = earlier_entries(tmp_path, "Tiny", [tmp_path / "Tiny-Q8_0.gguf"])
    assert [one.path.name for one in found] == ["Tiny-F16.gguf", "Tiny-Q4_0.gguf"]
    assert found[0].divergence
    assert found[0].divergence.overall.mean == 0.05
    assert (found[0].imatrix, found[0].fallbacks, found[0].tensors) == ({"file": "m.gguf"}, {"a": "F16"}, {"Q4_0": 3})


def test_an_artifact_that_nobody_checked_is_an_entry_too(tiny_model: Path) -> None:
    proof = unverified(gguf_source(tiny_model), tiny_model, fallbacks={"a": "F16"})
    found = entry_of(Artifact(Target("gguf", "Q8_0"), tiny_model, 1.0, proof))
    assert (found.type, found.file_bytes, found.divergence) == ("Q8_0", tiny_model.stat().st_size, None)
    assert (found.fallbacks, found.tensors) == ({"a": "F16"}, {})


def test_publishing_again_adds_to_the_card(tiny_model: Path, tmp_path: Path) -> None:
    fields = {"tokenizer.chat_template": builtin_source("chatml")}
    source = GGUFSource(copy_gguf(tiny_model, tmp_path / "Tiny-F32.gguf", fields=fields))
    folder = tmp_path / "pub"
    folder.mkdir()
    for name in ("F16", "BF16"):
        kind = gguf.GGMLQuantizationType[name]
        path = copy_gguf(source.path, folder / f"Tiny-{name}.gguf", quantize=kind)
        proof = prove(gguf_source(source.path), path)
        proof.write()
        target = Target("gguf", name)
        options = ConvertOptions(targets=(target,), publish=True, out=folder, repo="acme/Tiny-GGUF", threads=1)
        files = publish(source, [Artifact(target, path, 1.0, proof)], options, Silent())
        assert (folder / "template") in files
    card = (folder / "README.md").read_text()
    assert "[Tiny-F16.gguf]" in card
    assert "[Tiny-BF16.gguf]" in card
    assert (folder / "template").read_text() in (folder / "Modelfile").read_text()
    assert "acme/tiny-gguf" in (folder / "model.yaml").read_text()


@pytest.mark.parametrize(("limit_s", "runs"), [(0.0, 2), (1e9, 3)])
def test_slow_models_are_timed_less_often(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, limit_s: float, runs: int
) -> None:
    monkeypatch.setattr(speed_module, "SLOW_S", limit_s)
    assert measure_speed(tiny_model, threads=1).runs == runs


def test_sizes_are_shown_in_three_digits() -> None:
    assert [shown_size(size) for size in (98_362_432, 1_500_000, 12_345_678_901)] == ["98.4 MB", "1.5 MB", "12.35 GB"]


@pytest.fixture
def _matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("no matplotlib: pip install 'tapster[publish]'")


@pytest.mark.usefixtures("_matplotlib")
def test_the_chart_can_be_read(ladder: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
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
    canvas = figures[0].canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()
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
