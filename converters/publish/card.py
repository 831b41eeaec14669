"""The model card of a published ladder: ``README.md`` with front matter, the measured table, and how to run it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...runtime.profile import ModelProfile
from .entries import Entry, choices, is_beaten, recommended
from .sidecars import stop_strings
from .speed import DECODE_TOKENS, PROMPT_TOKENS, Machine

_COPIED = ("license", "license_name", "license_link", "language")


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card is made of. ``base_model`` is a Hub id or None, ``front`` the front matter of the source's own card,
    ``repo`` the repository that it will be published as. ``imatrix`` says what the importance matrix was made from."""

    name: str
    profile: ModelProfile
    entries: Sequence[Entry]
    base_model: str | None = None
    front: Mapping[str, Any] = field(default_factory=dict)
    repo: str = "USER/REPO"
    machine: Machine | None = None
    imatrix: str | None = None
    chart: Path | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


def model_card(facts: CardFacts) -> str:
    """The whole README.md."""
    parts = [
        _front_matter(facts),
        f"# {facts.name}: GGUF",
        _introduction(facts),
        "## Files",
        _table(facts),
        _table_notes(facts),
        *([f"![Divergence against size]({facts.chart.name})"] if facts.chart else []),
        "## Which to choose",
        _advice(facts),
        "## How to run",
        _running(facts),
        "## How answers end",
        _stops(facts.profile),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(facts: CardFacts) -> str:
    """Values are written as JSON, which is YAML too."""
    values: dict[str, Any] = {key: facts.front[key] for key in _COPIED if facts.front.get(key)}
    base = facts.base_model or facts.front.get("base_model")
    if base:
        values["base_model"] = base
        values["base_model_relation"] = "quantized"
    values["library_name"] = "gguf"
    values["pipeline_tag"] = facts.front.get("pipeline_tag") or "text-generation"
    tags = ["gguf", "llama.cpp", "quantized", *(["imatrix"] if facts.imatrix else [])]
    own = facts.front.get("tags")
    values["tags"] = list(dict.fromkeys([*tags, *(map(str, own) if isinstance(own, list) else [])]))
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False, default=str)}" for key, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def _introduction(facts: CardFacts) -> str:
    base = facts.base_model or facts.front.get("base_model")
    source = f"[{base}](https://huggingface.co/{base})" if isinstance(base, str) and "/" in base else facts.name
    made = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    lines = [f"{source} as GGUF files, made with tapster{f' ({made})' if made else ''}."]
    lines.append("Beside each file lies `NAME.proof.json`: what was checked, and what the conversion lost.")
    if facts.imatrix:
        lines.append(f"The importance matrix was collected from {facts.imatrix}.")
    return " ".join(lines)


def _table(facts: CardFacts) -> str:
    has_speed = any(entry.speed for entry in facts.entries)
    heads = ["File", "Type", "Bits per weight", "Size", "Mean KLD", "99.9 % KLD", "Top-1 agreement"]
    heads += ["Prefill, tokens/s", "Decode, tokens/s"] if has_speed else []
    rows = [_row(entry, has_speed) for entry in facts.entries]
    rule = ["---", "---", *["---:"] * (len(heads) - 2)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


def _row(entry: Entry, has_speed: bool) -> list[str]:
    name = entry.path.name
    cells = [f"[{name}]({name})", entry.type, f"{entry.bits_per_weight:.2f}", shown_size(entry.file_bytes)]
    if entry.divergence:
        figures = entry.divergence.overall
        cells += [_mean(figures.mean, figures.low, figures.high), f"{figures.p999:.3g}", f"{100 * figures.top1:.1f} %"]
    else:
        cells += ["–", "–", "–"]
    if has_speed:
        cells += [_tokens(entry.speed.prefill), _tokens(entry.speed.decode)] if entry.speed else ["–", "–"]
    return cells


def _mean(mean: float, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"{mean:.3g}"
    return f"{mean:.3g} ± {(high - low) / 2:.1g}"


def _tokens(per_second: float) -> str:
    return f"{per_second:.0f}" if per_second >= 10 else f"{per_second:.1f}"


def shown_size(num_bytes: int) -> str:
    """Decimal units, three digits."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.3g} MB"


def _table_notes(facts: CardFacts) -> str:
    notes: list[str] = []
    measured = next((entry.divergence for entry in facts.entries if entry.divergence), None)
    if measured:
        notes.append(
            f"KLD is the Kullback-Leibler divergence of a file's predictions from those of {measured.reference.name}, "
            f"in nats, over {measured.overall.tokens} positions of held-out text in the model's chat format; "
            f"± is half of the mean's 95 % interval. Top-1 agreement: how often both find the same token most likely."
        )
    speed = next((entry.speed for entry in facts.entries if entry.speed), None)
    if speed:
        notes.append(
            f"Speeds: {facts.machine or 'one machine'}, {speed.threads} thread{'' if speed.threads == 1 else 's'}, "
            f"CPU only, llama.cpp, a prompt of {PROMPT_TOKENS} tokens and {DECODE_TOKENS} more written; median of "
            f"three. Other machines are faster or slower, and the order of types may differ there."
        )
    return "\n\n".join(notes)


def _advice(facts: CardFacts) -> str:
    found = choices(facts.entries)
    if not found:
        best = recommended(facts.entries)
        return f"`{best.path.name}`: {'the one that lost least' if best.divergence else 'nothing else was measured'}."
    lines = [
        f"* **{purpose}**: `{entry.path.name}` ({shown_size(entry.file_bytes)}), "
        f"the smallest file with a mean KLD of at most {threshold:g}."
        for purpose, threshold, entry in found
    ]
    beaten = [entry.type for entry in facts.entries if is_beaten(entry, facts.entries)]
    if beaten:
        lines.append(f"* For each of {', '.join(beaten)}, another file is no larger and lost less.")
    return "\n".join(lines)


def _running(facts: CardFacts) -> str:
    file = recommended(facts.entries).path.name
    stops = stop_strings(facts.profile)
    prompt = f" -r {_shell(stops[0])}" if stops else ""
    return "\n".join(
        (
            "```sh",
            "# tapster: stops, template and sampling come with the file",
            f"tapster serve {file}",
            f"tapster chat {file}",
            "",
            "# llama.cpp",
            f"llama-server -m {file} --jinja{prompt}",
            "",
            "# Ollama: stop strings and template are in Modelfile (for the Hub: in params)",
            f"ollama create {facts.name.lower()} -f Modelfile",
            f"ollama run hf.co/{facts.repo}:{recommended(facts.entries).type}",
            "```",
        )
    )


def _shell(text: str) -> str:
    """One word for a shell; llama.cpp resolves the escapes."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return "'" + text.replace("'", "'\\''") + "'"


def _stops(profile: ModelProfile) -> str:
    stops = stop_strings(profile)
    if not stops:
        return "The end-of-generation tokens in each file end an answer; no stop string is needed."
    shown = ", ".join(f"`{json.dumps(stop, ensure_ascii=False)[1:-1]}`" for stop in stops)
    return (
        f"An answer ends at {shown}. The files carry this in the metadata key `tapster.stop_strings` or in their chat "
        f"template; programs that read neither have to be given it as a stop string: see `Modelfile`, `params`, "
        f"`preset.ini` and `model.yaml`."
    )
