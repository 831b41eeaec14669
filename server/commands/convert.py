"""``tapster convert``: a checkpoint to GGUF, MLX and ONNX artifacts with their proofs, and back again."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...converters.artifact import Artifact
    from ...converters.options import ConvertOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "source", metavar="SOURCE", help="a checkpoint folder, a .gguf file, a Hugging Face id (org/name) or demo"
    )
    parser.add_argument(
        "--to",
        action="append",
        default=[],
        metavar="FORMAT:TYPE",
        help="what to make: gguf:Q4_K_M, gguf:all (the whole ladder), mlx:4bit, onnx:int4, hf (a checkpoint from a "
        "GGUF file); repeatable",
    )
    where = parser.add_argument_group("where to")
    where.add_argument("--out", type=Path, metavar="PATH", help="a file or a folder (default: beside the source)")
    where.add_argument("--force", action="store_true", help="replace what is there")
    where.add_argument("--no-sidecars", action="store_true", help="no files for Ollama, llama-server and LM Studio")
    where.add_argument(
        "--publish", type=Path, metavar="DIR", help="a folder to upload: also a model card, a chart and speeds"
    )
    where.add_argument("--repo", metavar="USER/REPO", help="the repository the model card names")
    model = parser.add_argument_group("the model")
    model.add_argument("--chat-template", metavar="NAME|FILE", help="use a built-in template or a .jinja file")
    model.add_argument("--stop", action="append", default=[], metavar="TEXT", help="one more stop string; repeatable")
    _add_quantizing(parser.add_argument_group("quantizing"))
    proof = parser.add_argument_group("the proof")
    proof.add_argument("--no-verify", action="store_true", help="skip all checks, and say so in the proof file")
    proof.add_argument("--proof-text", type=Path, metavar="FILE", help="text to measure the divergence on")
    proof.add_argument(
        "--proof-tokens",
        type=int,
        metavar="N",
        help="use at least as many tokens of it; more narrow the interval (default: 8192; 512 with mlx on a CPU)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads to compute with (default: all cores)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _add_quantizing(group: Any) -> None:
    group.add_argument(
        "--imatrix",
        metavar="FILE|auto|none",
        help="an importance matrix; auto collects one (default: auto with gguf:all and where a type needs it)",
    )
    group.add_argument("--calibration", type=Path, metavar="FILE", help="text to collect the importance matrix from")
    group.add_argument(
        "--tensor-type",
        action="append",
        default=[],
        metavar="REGEX=TYPE",
        help="the type of the tensors whose name contains a match; the first that matches counts; repeatable",
    )
    group.add_argument("--output-type", metavar="TYPE", help="the type of the output layer")
    group.add_argument("--embedding-type", metavar="TYPE", help="the type of the token embeddings")
    group.add_argument(
        "--group-size",
        type=int,
        metavar="N",
        help="weights that share a scale: 32, 64 or 128 for mlx (default: 64), 32 or 128 for onnx (default: 32)",
    )
    group.add_argument(
        "--int4-method",
        metavar="rtn|k-quant",
        help="how the scales of onnx:int4 are found: rounded to nearest, or searched for (default: k-quant)",
    )
    group.add_argument("--clamp", action="store_true", help="cut off what float16 cannot hold instead of refusing it")


def run(args: argparse.Namespace) -> int:
    """0 when every artifact was made and passed its proof. Raises TapsterError; ProofError after all the others."""
    from ...converters.convert import Conversion, convert
    from ...runtime.errors import TapsterError
    from ..terminal.progress import TerminalProgress
    from .interrupts import end_once

    options = _options(args)
    end_once()
    made, ended = Conversion(), None
    try:
        with TerminalProgress(quiet=args.quiet) as progress:
            convert(args.source, options, made, progress=progress, tell=lambda text: progress.say(f"note: {text}"))
    except (TapsterError, KeyboardInterrupt) as error:
        ended = str(error) or "interrupted"
        raise
    finally:  # what was made before it ended, however it ended
        if args.json:
            report = {**made.to_json(), "error": ended}
            sys.stdout.write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        else:
            _print(made.artifacts, made.files)
    return 0


def _options(args: argparse.Namespace) -> "ConvertOptions":
    from ...converters.options import AUTO, NONE, ConvertOptions
    from ...converters.targets import parse_targets
    from ...runtime.errors import ConversionError

    if args.publish and args.out:
        raise ConversionError("--publish says where the files go: leave out --out")
    imatrix = args.imatrix or (AUTO if "gguf:all" in args.to else None)
    if imatrix not in (None, AUTO, NONE) and not Path(imatrix).is_file():
        raise ConversionError(f"--imatrix {imatrix}: no such file; give one, or auto or none")
    return ConvertOptions(
        targets=parse_targets(args.to),
        out=args.publish or args.out,
        force=args.force,
        verify=not args.no_verify,
        clamp=args.clamp,
        publish=args.publish is not None,
        sidecars=not args.no_sidecars,
        imatrix=imatrix,
        calibration=args.calibration,
        proof_text=args.proof_text,
        proof_tokens=args.proof_tokens,
        tensor_types=tuple(_tensor_type(text) for text in args.tensor_type),
        output_type=args.output_type,
        embedding_type=args.embedding_type,
        group_size=args.group_size,
        int4_method=args.int4_method,
        chat_template=args.chat_template,
        stops=tuple(args.stop),
        threads=args.threads,
        repo=args.repo,
    )


def _tensor_type(text: str) -> tuple[str, str]:
    from ...runtime.errors import ConversionError

    pattern, equals, kind = text.rpartition("=")
    if not equals or not pattern:
        raise ConversionError(f"--tensor-type {text}: write a regular expression and a type, like 'ffn_down=Q6_K'")
    return pattern, kind


def _print(artifacts: "list[Artifact]", files: list[Path]) -> None:
    for artifact in artifacts:
        sys.stdout.write(f"{artifact.path}{_figures(artifact)}\n")
        if artifact.fallbacks:
            kinds = ", ".join(sorted(set(artifact.fallbacks.values())))
            unit = "blocks" if artifact.target.format == "gguf" else "groups"
            sys.stdout.write(
                f"  {len(artifact.fallbacks)} tensors have rows that are no whole {unit} and are {kinds} instead\n"
            )
        if artifact.clamped:
            count = sum(artifact.clamped.values())
            sys.stdout.write(f"  {count} values in {len(artifact.clamped)} tensors were cut off at float16's limit\n")
    for path in files:
        sys.stdout.write(f"{path}\n")


def _figures(artifact: "Artifact") -> str:
    from rich.filesize import decimal

    from ...converters.proof.figures import shown

    parts = [decimal(artifact.num_bytes)]
    if artifact.divergence:
        figures = artifact.divergence.overall
        parts.append(f"mean KLD {shown(figures.mean)} nats, top-1 agreement {100 * figures.top1:.1f} %")
    if artifact.proof and not artifact.proof.record["verified"]:
        parts.append("not verified")
    if artifact.failures:
        parts.append("FAILED ITS PROOF")
    return f"  ({', '.join(parts)})" if parts else ""
