"""Files beside an artifact that tell other programs how it stops: none of them reads ``tapster.stop_strings``.

Modelfile    ``ollama create NAME -f Modelfile``
params       read by ``ollama run hf.co/USER/REPO`` from the root of a repository, and there also
template     the Go template alone, only in a published folder
preset.ini   ``llama-server --models-preset preset.ini``
model.yaml   LM Studio
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...runtime.chat.template import ChatTemplate
from ...runtime.errors import ConversionError
from ...runtime.profile import ModelProfile
from .go_template import template_parts

_OLLAMA = {"repeat_penalty": "repeat_penalty", "penalty_last_n": "repeat_last_n"}
_PRESET = {"temperature": "temp", "penalty_last_n": "repeat-last-n"}
_STUDIO = {
    "temperature": "temperature",
    "top_k": "topKSampling",
    "top_p": "topPSampling",
    "min_p": "minPSampling",
    "repeat_penalty": "repeatPenalty",
}
_STUDIO_SWITCHED = ("top_p", "min_p", "repeat_penalty")
"""Those that LM Studio shows with a box to tick."""


def stop_strings(profile: ModelProfile) -> list[str]:
    """What has to end an answer in a program that knows only stop strings. The end of a turn comes first: some programs
    take one alone."""
    return list(dict.fromkeys([*filter(None, [profile.end_of_turn]), *profile.stop_strings]))


def sidecars(profile: ModelProfile, *, repo: str | None = None) -> dict[str, str]:
    """File names and contents for the artifact that ``profile`` was read from; they lie in its folder. ``repo`` is the
    repository on the Hub, ``USER/REPO``, where it is or will be."""
    return {
        "Modelfile": _modelfile(profile),
        "params": json.dumps(_ollama_parameters(profile), indent=2, ensure_ascii=False) + "\n",
        "preset.ini": _preset(profile),
        "model.yaml": _model_yaml(profile, repo or f"USER/{profile.name.rpartition('-')[0] or profile.name}-GGUF"),
    }


def write_sidecars(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write them, replacing older ones. ConversionError when one cannot be written."""
    paths = [folder / name for name in texts]
    try:
        for path, text in zip(paths, texts.values(), strict=True):
            path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise ConversionError(f"cannot write the sidecars into {folder}: {error.strerror}") from error
    return paths


def _ollama_parameters(profile: ModelProfile) -> dict[str, Any]:
    stops = stop_strings(profile)
    sampling = {_OLLAMA.get(name, name): value for name, value in profile.sampling.items()}
    return ({"stop": stops} if stops else {}) | sampling


def _modelfile(profile: ModelProfile) -> str:
    lines = [f"FROM ./{profile.path.name}", *_go_template(profile)]
    for name, value in _ollama_parameters(profile).items():
        values = value if isinstance(value, list) else [value]
        lines += [f"PARAMETER {name} {_quoted(one) if isinstance(one, str) else one}" for one in values]
    return "\n".join(lines) + "\n"


def go_template(profile: ModelProfile) -> str | None:
    """The chat template in Go's template language; None where there is none or Go cannot say the same."""
    template = _template(profile)
    if template is None:
        return None
    parts = template_parts(template, without_bos=profile.bos_token if profile.add_bos else None)
    return parts.to_go() if parts else None


def _template(profile: ModelProfile) -> ChatTemplate | None:
    source = profile.chat_templates.get("default")
    return (
        ChatTemplate(source, bos_token=profile.bos_token, eos_token=profile.eos_token) if source is not None else None
    )


def _go_template(profile: ModelProfile) -> list[str]:
    template, go = _template(profile), go_template(profile)
    if template is None:
        return ["# The model has no chat template."]
    if not go or '"""' in go:
        return [
            "# No TEMPLATE: Go's template language cannot say what the model's chat template does.",
            "# Ollama looks for a known one that resembles it.",
        ]
    left_out = [name for name in ("tools", "enable_thinking") if template.uses(name)]
    note = [f"# Not expressed in this TEMPLATE: {', '.join(left_out)}."] if left_out else []
    return [*note, f'TEMPLATE """{go}"""']


def _quoted(text: str) -> str:
    """A value as a Modelfile takes it: there are no escapes, but text in triple quotes may have line breaks."""
    marks = '"""' if '"' in text or "\n" in text else '"'
    return f"{marks}{text}{marks}"


def _preset(profile: ModelProfile) -> str:
    stops = stop_strings(profile)
    lines = ["version = 1", "", f"[{profile.name}]", "; relative to where llama-server is started"]
    lines += [f"model = {profile.path.name}"]
    if stops:
        lines += [f"reverse-prompt = {_escaped(stops[0])}"]
    for stop in stops[1:]:
        lines += [f"; a preset holds one stop string; requests have to bring: {_escaped(stop)}"]
    names = {name: _PRESET.get(name, name.replace("_", "-")) for name in profile.sampling}
    lines += [f"{names[name]} = {value}" for name, value in profile.sampling.items()]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """llama.cpp resolves escapes in a stop string; a hash or semicolon would begin a comment, outer spaces go."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    text = text.replace("#", "\\x23").replace(";", "\\x3B")
    inner = text.strip(" ")
    before, after = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    return "\\x20" * before + inner + "\\x20" * after if inner else "\\x20" * len(text)


def _model_yaml(profile: ModelProfile, repo: str) -> str:
    user, _, name = repo.rpartition("/")
    user = user or "USER"
    model = name[: -len("-gguf")] if name.lower().endswith("-gguf") else name
    lines = [
        f"model: {_yaml(f'{user}/{model}'.lower())}",
        "base:",
        f"  - key: {_yaml(f'{user}/{name}'.lower())}",
        "    sources:",
        "      - type: huggingface",
        f"        user: {_yaml(user)}",
        f"        repo: {_yaml(name)}",
    ]
    fields = _studio_fields(profile)
    if fields:
        lines += ["config:", "  operation:", "    fields:"]
    for key, value in fields.items():
        lines += [f"      - key: llm.prediction.{key}", f"        value: {_yaml(value)}"]
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    """JSON is YAML too, but for the two halves in which it escapes a sign beyond sixteen bits."""
    return json.dumps(value, ensure_ascii=False)


def _studio_fields(profile: ModelProfile) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if stops := stop_strings(profile):
        fields["stopStrings"] = stops
    for name, value in profile.sampling.items():
        if name in _STUDIO:
            fields[_STUDIO[name]] = {"checked": True, "value": value} if name in _STUDIO_SWITCHED else value
    return fields
