"""The model card of a result: what it was made of and how, so that somebody else can make it again."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from ..recipe.resolved import to_toml
from ..recipe.schema import Recipe
from .compare import SUFFIX, has_one_loss, table
from .display import shown
from .licences import OF_SAMPLES, is_sample, licence_of_model, licence_of_source
from .metrics import read_metrics
from .origin import Origin, origin_of
from .paths import without_paths
from .usage import usage

_PACKAGES = ("tapster", "torch", "transformers", "accelerate", "datasets", "peft", "tokenizers")
_PICTURE = "loss.png"
_SPOKEN = {"sha256": "fingerprint of its files"}
"""What keys of a teacher's identity are called."""


def write_card(
    folder: Path,
    recipe: Recipe,
    *,
    metrics: Path,
    sources: Iterable[Mapping[str, Any]] = (),
    teacher: Mapping[str, Any] | None = None,
    student: Path | None = None,
    picture: Path | None = None,
    rounds: Sequence[Mapping[str, int]] = (),
) -> Path:
    """Write ``README.md`` into the model's folder, and the picture beside it.

    ``sources`` are the fingerprints of the data (``source``, and ``files`` with their SHA-256 or ``revision``),
    ``teacher`` is what identifies it, ``student`` the folder that the model began as, ``rounds`` what came of rounds of
    self-teaching.
    """
    has_picture = picture is not None and picture.is_file()
    if picture is not None and has_picture:
        shutil.copyfile(picture, folder / _PICTURE)
    sources, licence = _unique(sources), licence_of_model(student)
    origin = origin_of(recipe.student.model) if recipe.student.model else None
    parts = [
        _front_matter(recipe, sources, licence, origin),
        _introduction(recipe, origin),
        usage(folder),
        _results(recipe, read_metrics(metrics)),
        _comparison(recipe, read_metrics(metrics)),
        _rounds(rounds),
        f"![The loss of each stage]({_PICTURE})" if has_picture else "",
        _data(sources),
        _teacher(teacher),
        _licences(sources, licence, recipe, origin),
        _recipe(recipe),
        _versions(),
    ]
    card = folder / "README.md"
    text = "\n\n".join(part for part in parts if part) + "\n"
    card.write_text(without_paths(text, recipe.model_dump(), sources, teacher), encoding="utf-8")
    return card


def _front_matter(
    recipe: Recipe, sources: Sequence[Mapping[str, Any]], licence: str | None, origin: Origin | None
) -> str:
    values: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": _tags(recipe)}
    if recipe.student.scratch is not None and sources and all(map(is_sample, sources)):
        licence = OF_SAMPLES
    if licence:
        values["license"] = licence
    if origin is not None and origin.hub:
        values["base_model"] = origin.hub
    if hub := [name for source in sources if (name := _hub_name(source))]:
        values["datasets"] = list(dict.fromkeys(hub))
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---"


def _tags(recipe: Recipe) -> list[str]:
    terms = [objective.term for stage in recipe.stages for objective in stage.objective]
    return ["tapster", recipe.name, *(["distillation"] if recipe.teacher else []), *dict.fromkeys(terms)]


def _introduction(recipe: Recipe, origin: Origin | None) -> str:
    stages = ", then ".join(f"`{stage.name}`" for stage in recipe.stages)
    made = f"Trained by tapster from {origin.text() if origin else 'random weights'}: {stages}."
    if recipe.card:
        made += f"\n\nThe recipe follows [a published model card]({recipe.card})."
    return "\n\n".join(part for part in (f"# {recipe.title}", recipe.description.strip(), made) if part)


def _results(recipe: Recipe, records: Sequence[Mapping[str, Any]]) -> str:
    """Held-out values of each stage, first and last."""
    one_loss = {stage.name: has_one_loss(stage) for stage in recipe.stages}
    rows: list[str] = []
    for stage in dict.fromkeys(record["stage"] for record in records if not record["stage"].endswith(SUFFIX)):
        held = [record for record in records if record["stage"] == stage and record["kind"] == "eval"]
        if held:
            terms = [name for name in held[-1] if name.startswith("terms/")]
            is_sum = one_loss.get(stage, True) and "loss" in held[-1]
            names = [*(["loss"] if is_sum else []), *(terms if len(terms) > 1 or not is_sum else [])]
            rows += [_result(stage, name, held[0], held[-1]) for name in names]
    if not rows:
        return ""
    head = "| stage | held-out text | before | after |\n|---|---|---:|---:|\n"
    return "## Evaluation\n\n" + head + "\n".join(rows)


def _result(stage: str, name: str, first: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    before, after = (_number(record.get(name)) for record in (first, last))
    return (
        f"| {stage} | {name.removeprefix('terms/')} | {before} (step {first['step']}) | {after} (step {last['step']}) |"
    )


def _number(value: Any) -> str:
    return shown(value) if isinstance(value, int | float) else "not finite"


def _comparison(recipe: Recipe, records: Sequence[Mapping[str, Any]]) -> str:
    tables = [found for stage in recipe.stages if stage.baseline and (found := table(stage.name, records))]
    if not tables:
        return ""
    about = (
        "Plain fine-tuning: the same student with cross-entropy alone, on the same rows in random order, for as many "
        "steps. All values are of the same held-out rows, from one run each."
    )
    return "\n\n".join(["## Beside plain fine-tuning", about, *tables])


def _rounds(rounds: Sequence[Mapping[str, int]]) -> str:
    if not rounds:
        return ""
    head = (
        "| round | questions | answers with a rationale | of them right | pairs of a right and a wrong one |\n"
        "|---:|---:|---:|---:|---:|\n"
    )
    keys = ("number", "questions", "answers", "right", "pairs")
    rows = ["| " + " | ".join(f"{one[key]:,}" for key in keys) + " |" for one in rounds]
    return "## Self-teaching\n\nAnswered by the model as each round began.\n\n" + head + "\n".join(rows)


def _data(sources: Sequence[Mapping[str, Any]]) -> str:
    if not sources:
        return ""
    lines: list[str] = []
    for source in sources:
        revision = f", revision `{source['revision']}`" if source.get("revision") else ""
        rows = f", {source['rows']:,} rows" if isinstance(source.get("rows"), int) else ""
        lines.append(f"* `{source.get('source', '?')}`{rows}{revision}")
        files = source.get("files") or {}
        lines += [f"  * `{name}`: SHA-256 `{digest}`" for name, digest in files.items()]
    return "## Data\n\n" + "\n".join(lines)


def _teacher(identity: Mapping[str, Any] | None) -> str:
    if not identity:
        return ""
    said = {_SPOKEN.get(key, key): value for key, value in identity.items() if value not in (None, "", [], {})}
    if isinstance(name := said.get("model"), str):
        said["model"] = _model(name)
    lines = [f"* {key}: {_code(value)}" for key, value in said.items()]
    return "## Teacher\n\n" + "\n".join(lines)


def _model(spec: str) -> str:
    """What a teacher is called."""
    return "the student as it was before" if spec == "student" else origin_of(spec).name


def _licences(sources: Sequence[Mapping[str, Any]], licence: str | None, recipe: Recipe, origin: Origin | None) -> str:
    lines = [f"* the model it began as, `{origin.name}`: {licence or 'not stated'}"] if origin else []
    if recipe.teacher and recipe.teacher.model not in (None, "student", recipe.student.model):
        lines.append(f"* the teacher, `{_model(recipe.teacher.model)}`: see its own terms")
    lines += [f"* `{source.get('source', '?')}`: {licence_of_source(source)}" for source in sources]
    return "## Licences of what went in\n\n" + "\n".join(lines) if lines else ""


def _recipe(recipe: Recipe) -> str:
    """All that holds, but for where the teacher was asked, which is nobody's business."""
    teacher, notes = recipe.teacher, []
    if teacher is not None and teacher.endpoint is not None:
        recipe = recipe.model_copy(update={"teacher": teacher.model_copy(update={"endpoint": None})})
        notes.append("The teacher's address is left out: give one with `--teacher URL`.")
    if "demo" in (recipe.student.model, teacher and teacher.model):
        notes.append(f"`demo` is {origin_of('demo').text()}, of the package `tapster[demo]`.")
    text = to_toml(recipe)
    fence = "`" * (3 + text.count("```"))
    return "\n\n".join(["## Recipe", *notes, f"{fence}toml\n{text}{fence}"])


def _versions() -> str:
    found = [f"{name} {number}" for name in _PACKAGES if (number := _version(name))]
    return f"Made with {', '.join(found)}."


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hub_name(source: Mapping[str, Any]) -> str | None:
    name = str(source.get("source", ""))
    return name.removeprefix("hub:").split(":")[0] if name.startswith("hub:") else None


def _unique(sources: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Each source once, though several stages read it."""
    found: dict[str, Mapping[str, Any]] = {}
    for source in sources:
        found.setdefault(repr(sorted(source.items(), key=lambda item: item[0])), source)
    return list(found.values())


def _code(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else str(value)
