"""The model card of a published ladder: ``README.md`` with front matter, the measured table, and how to run it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...runtime.profile import ModelProfile
from ..gguf.types import LADDER
from ..proof.figures import Divergence, shown
from .entries import Entry, choices, is_beaten, recommended
from .sidecars import stop_strings
from .speed import DECODE_TOKENS, PROMPT_TOKENS, Machine

_COPIED = ("license", "license_name", "license_link", "language")
_MAX_LIST_CHARS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card is made of. ``base_model`` is a Hub id or None, ``front`` the front matter of the source's own card,
    ``repo`` the repository that it will be published as."""

    name: str
    profile: ModelProfile
    entries: Sequence[Entry]
    base_model: str | None = None
    front: Mapping[str, Any] = field(default_factory=dict)
    repo: str = "USER/REPO"
    machine: Machine | None = None
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
    """Values are written as JSON, which is YAML too. Of the source's own only texts and lists of texts are copied."""
    front = {key: plain for key, value in facts.front.items() if (plain := _plain(value))}
    values: dict[str, Any] = {key: front[key] for key in _COPIED if key in front}
    base = facts.base_model or front.get("base_model")
    if base:
        values["base_model"] = base
        values["base_model_relation"] = "quantized"
    values["library_name"] = "gguf"
    values["pipeline_tag"] = front.get("pipeline_tag", "text-generation")
    tags = ["gguf", "llama.cpp", "quantized", *(["imatrix"] if any(entry.imatrix for entry in facts.entries) else [])]
    own = front.get("tags", [])
    values["tags"] = list(dict.fromkeys([*tags, *(own if isinstance(own, list) else [])]))
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def _plain(value: object) -> str | list[str] | None:
    """A text, or the texts of a list; None for all else, and for what is too long. YAML's aliases let a card of a few
    hundred bytes hold lists of lists, or one text many times, that no memory can hold written out."""
    if not isinstance(value, list):
        return value if isinstance(value, str) else None
    texts = [text for text in value if isinstance(text, str)]
    return texts if sum(map(len, texts)) <= _MAX_LIST_CHARS else None


def _introduction(facts: CardFacts) -> str:
    base = facts.base_model or facts.front.get("base_model")
    source = f"[{base}](https://huggingface.co/{base})" if isinstance(base, str) and "/" in base else facts.name
    made = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    lines = [f"{source} as GGUF files, made with tapster{f' ({made})' if made else ''}."]
    lines.append("Beside each file lies `NAME.proof.json`: what was checked, and what the conversion lost.")
    return " ".join([*lines, *_imatrices(facts.entries)])


def _imatrices(entries: Sequence[Entry]) -> list[str]:
    """Which types were made with which importance matrix, by their proofs."""
    types: dict[str, list[str]] = {}
    for entry in entries:
        if entry.imatrix:
            text = entry.imatrix.get("text")
            name = f"`{entry.imatrix.get('file', '?')}`{f' (collected from {text})' if text else ''}"
            types.setdefault(name, []).append(entry.type)
    return [f"Made with the importance matrix {name}: {', '.join(found)}." for name, found in types.items()]


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
        cells += [shown(figures.mean, figures.low, figures.high), shown(figures.p999), f"{100 * figures.top1:.1f} %"]
    else:
        cells += ["–", "–", "–"]
    if has_speed:
        cells += [_tokens(entry.speed.prefill), _tokens(entry.speed.decode)] if entry.speed else ["–", "–"]
    return cells


def _tokens(per_second: float) -> str:
    return f"{per_second:.0f}" if per_second >= 10 else f"{per_second:.1f}"


def shown_size(num_bytes: int) -> str:
    """Decimal units, three digits."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.3g} MB"


def _table_notes(facts: CardFacts) -> str:
    notes = _fallback_notes(facts.entries)
    measured = next((entry.divergence for entry in facts.entries if entry.divergence), None)
    if measured:
        notes.append(
            f"KLD is the Kullback-Leibler divergence of a file's predictions from those of {measured.reference.name}, "
            f"in nats, over {measured.overall.tokens} positions of {_text(measured)} in the model's chat format; "
            f"± is half of the mean's 95 % interval. Top-1 agreement: how often both find the same token "
            f"most likely."
        )
        others = [entry.path.name for entry in facts.entries if entry.divergence and not _alike(entry, measured)]
        if others:
            notes.append(
                f"Measured over another text or from another file, so not to be compared: {', '.join(others)}."
            )
    speed = next((entry.speed for entry in facts.entries if entry.speed), None)
    if speed:
        notes.append(
            f"Speeds: {facts.machine or 'one machine'}, {speed.threads} thread{'' if speed.threads == 1 else 's'}, "
            f"CPU only, llama.cpp, a prompt of {PROMPT_TOKENS} tokens and {DECODE_TOKENS} more written; medians of "
            f"{_runs(facts.entries)} runs. Other machines are faster or slower, and the order of types may differ "
            f"there."
        )
    return "\n\n".join(notes)


def _text(measured: Divergence) -> str:
    return (measured.text and measured.text.name) or "held-out text"


def _alike(entry: Entry, other: Divergence) -> bool:
    """Whether an entry was measured on the same text, as much of it, and from the same file."""
    found = entry.divergence
    assert found is not None
    is_same_text = (found.text and found.text.sha256) == (other.text and other.text.sha256)
    return is_same_text and (found.reference.name, found.overall.tokens) == (other.reference.name, other.overall.tokens)


def _runs(entries: Sequence[Entry]) -> str:
    return " or ".join(str(runs) for runs in sorted({entry.speed.runs for entry in entries if entry.speed}))


def _fallback_notes(entries: Sequence[Entry]) -> list[str]:
    """For each file with tensors of another type than its name says, which, and whether any has that type at all."""
    bases = {kind.name: kind.base for kind in LADDER}
    lines = []
    for entry in entries:
        if not entry.fallbacks:
            continue
        counts = Counter(entry.fallbacks.values())
        many = f"{len(entry.fallbacks)} tensor{' is' if len(entry.fallbacks) == 1 else 's are'}"
        said = f"{many} {' or '.join(sorted(counts))}: their rows are no whole blocks"
        base = bases.get(entry.type, entry.type)
        if entry.tensors and base not in entry.tensors:
            said = f"**no tensor is {base}**. {said}"
        lines.append(f"* `{entry.path.name}`: {said}.")
    return ["\n".join(lines)] if lines else []


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
    prompt = "".join(f" -r {_shell(stop)}" for stop in stops)
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
            "# Ollama: stop strings and template are in Modelfile (for the Hub: in params and template)",
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
