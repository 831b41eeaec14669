"""``tapster inspect``: a model's profile, where each value came from, what it is made of, what is wrong.

``--json`` prints one object. Its keys are stable: the fields of ModelProfile by their names, and

    files               the model's files of weights, in order
    vocabulary_size     tokens, or null where there is no vocabulary
    quantization        mode, bits and group_size of most of an MLX or ONNX model; null of others, whose types say it
    bits_per_weight     of all tensors together, or null where there are none
    tensor_types        a list, the largest first: type, tensors, parameters, bytes, bits_per_weight
    template_variables  by chat template: what a request can set for it (tools, enable_thinking …)
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...runtime.model_weights import SizedTensor
    from ...runtime.profile import ModelProfile

_TEMPLATE_VARIABLES = (
    "tools",
    "documents",
    "enable_thinking",
    "thinking",
    "reasoning_effort",
    "custom_tools",
    "builtin_tools",
    "date_string",
)
_PLAIN_WIDTH = 150


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "model", nargs="?", default="demo", metavar="MODEL", help="a .gguf file, a folder, org/name[:QUANT] or demo"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--chat-template", metavar="NAME|FILE", help="a template to use instead of the model's own")


def run(args: argparse.Namespace) -> int:
    """Exit status 0, also for a model with problems: to show them is the job."""
    from ...runtime.resolve import resolve_model

    report = model_report(resolve_model(args.model), chat_template=args.chat_template)
    if args.json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        _print(report)
    return 0


def model_report(path: Path, *, chat_template: str | None = None) -> dict[str, Any]:
    """What ``--json`` prints of the model at ``path``. ModelError, ConfigError."""
    from ...runtime.model_weights import read_model_weights
    from ...runtime.profile import load_profile

    profile = load_profile(path, chat_template=chat_template)
    weights = read_model_weights(profile)
    return {
        **asdict(profile),
        "sources": {**profile.sources, "vocabulary_size": weights.vocabulary_source},
        "path": str(profile.path),
        "files": [str(file) for file in weights.files],
        "vocabulary_size": weights.vocabulary_size,
        "quantization": weights.quantization,
        "bits_per_weight": _totals(weights.tensors)["bits_per_weight"],
        "tensor_types": _tensor_types(weights.tensors),
        "template_variables": _template_variables(profile),
    }


def _tensor_types(tensors: "Sequence[SizedTensor]") -> list[dict[str, Any]]:
    by_type: defaultdict[str, list[SizedTensor]] = defaultdict(list)
    for tensor in tensors:
        by_type[tensor.type].append(tensor)
    rows = [{"type": name, **_totals(found)} for name, found in by_type.items()]
    return sorted(rows, key=lambda row: row["bytes"], reverse=True)


def _totals(tensors: "Sequence[SizedTensor]") -> dict[str, Any]:
    parameters = sum(tensor.parameters for tensor in tensors)
    num_bytes = sum(tensor.size_bytes for tensor in tensors)
    bits = round(num_bytes * 8 / parameters, 3) if parameters else None
    return {"tensors": len(tensors), "parameters": parameters, "bytes": num_bytes, "bits_per_weight": bits}


def _template_variables(profile: "ModelProfile") -> dict[str, list[str]]:
    from ...runtime.chat.template import ChatTemplate

    found: dict[str, list[str]] = {}
    for name, source in profile.chat_templates.items():
        template = ChatTemplate(source, bos_token=profile.bos_token, eos_token=profile.eos_token, name=name)
        found[name] = [variable for variable in _TEMPLATE_VARIABLES if template.uses(variable)]
    return found


def _print(report: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    # What stands in the file is shown as it is: no markup, no names of emoji, no colouring of numbers.
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    console = Console(markup=False, emoji=False, highlight=False, width=width)
    console.print(_printable(report["name"]), style="bold")
    for file in report["files"]:
        console.print(_printable(file), soft_wrap=True)
    facts = Table("", "value", "from", box=box.SIMPLE, pad_edge=False)
    for row in _facts(report, report["sources"]):
        facts.add_row(*map(_printable, row))
    console.print(facts)
    if report["tensor_types"]:
        columns = ("tensor type", "tensors", "parameters", "bytes", "bits per weight")
        types = Table(*columns, box=box.SIMPLE, pad_edge=False)
        for name, *numbers in (row.values() for row in report["tensor_types"]):
            types.add_row(name, *(f"{number:,}" for number in numbers))
        console.print(types)
    console.print("What is wrong:" if report["problems"] else "Nothing is wrong with it.", style="bold")
    for problem in report["problems"]:
        console.print(f"- {_printable(problem)}", soft_wrap=True)


def _facts(report: dict[str, Any], sources: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Name, value and source of what is known, as text; what the model does not have is left out."""
    for field, label in (("format", "format"), ("architecture", "architecture"), ("file_type", "file type")):
        yield label, report[field], sources.get(field, "")
    if report["quantization"]:
        shown = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in report["quantization"].items())
        yield "quantization", shown, sources.get("quantization", "")
    yield "size", _size(report), sources["parameters"]
    for field, label in (("context_length", "context length"), ("vocabulary_size", "vocabulary")):
        yield label, f"{report[field] or 0:,} tokens", sources.get(field, "")
    for name in ("bos", "eos"):
        if report[f"{name}_id"] is not None:
            value = f"{report[f'{name}_id']} {report[f'{name}_token']!r}"
            yield f"{name} token", value, sources[f"{name}_id"]
    if report["add_bos"] is not None:
        yield "add bos", "yes" if report["add_bos"] else "no", sources["add_bos"]
    for field in ("eog_ids", "end_of_turn", "stop_strings", "reasoning", "tool_call"):
        if report[field]:
            yield field.replace("_", " "), _shown(report[field]), sources[field]
    for name, value in report["sampling"].items():
        yield name, f"{value:g}", sources["sampling"]
    for name, source in report["chat_templates"].items():
        reads = "".join(f", reads {variable}" for variable in report["template_variables"][name])
        yield f"chat template {name}", f"{len(source):,} characters{reads}", sources["chat_templates"]


def _size(report: dict[str, Any]) -> str:
    from rich.filesize import decimal

    bits = report["bits_per_weight"]
    rate = f", {bits:.2f} bits per weight" if bits is not None else ""
    return f"{decimal(report['file_bytes'])}, {report['parameters']:,} parameters{rate}"


def _shown(value: str | Sequence[object]) -> str:
    items = [value] if isinstance(value, str) else value
    return " ".join(repr(item) for item in items)


def _printable(text: str) -> str:
    """The text with its control characters written out: a file may hold what a terminal would obey."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
