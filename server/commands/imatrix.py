"""``tapster imatrix``: run a calibration text through a model and write what its weights met."""

import argparse
import json
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "model", metavar="MODEL", help="a .gguf file or a folder with one, org/name[:QUANT] or demo; best in 16 bits"
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="text in the form of conversations, or plain (default: a text that comes with tapster)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="where to (default: NAME-imatrix.gguf beside the model)"
    )
    parser.add_argument("--chunk-tokens", type=int, default=512, metavar="N", help="tokens computed at a time")
    parser.add_argument("--no-resume", action="store_true", help="begin anew where an earlier run was interrupted")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads to compute with (default: adapt to what is free)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """0 when it is written. Ctrl-C keeps what was collected for the next run. Raises TapsterError."""
    from ...converters.imatrix.calibration import calibration_texts
    from ...converters.imatrix.collect import collect_imatrix
    from ...converters.options import MAX_THREADS
    from ...converters.outputs import base_name
    from ...runtime.errors import ConversionError
    from ...runtime.profile import load_profile
    from ...runtime.resolve import resolve_model
    from ..terminal.progress import TerminalProgress
    from .interrupts import end_once

    end_once()
    if args.threads is not None and not 1 <= args.threads <= MAX_THREADS:
        raise ConversionError(f"--threads must be between 1 and {MAX_THREADS}, not {args.threads}")
    if args.chunk_tokens < 16:
        raise ConversionError(f"--chunk-tokens must be at least 16, not {args.chunk_tokens}")
    path = resolve_model(args.model, formats=("gguf",))
    profile = load_profile(path)
    folder = Path() if args.model == "demo" else path.parent
    out = args.out or folder / f"{base_name(profile.name)}-imatrix.gguf"
    if out.exists() and not args.force:
        raise ConversionError(f"{out} is there already: give --force to replace it, or another place with --out")
    texts = calibration_texts(profile, args.calibration)
    with (
        TerminalProgress(quiet=args.quiet) as progress,
        progress.stage(f"Collecting the importance matrix of {profile.name}", 1) as advance,
    ):
        share = 0.0

        def move(done: int, total: int) -> None:
            nonlocal share
            advance(done / total - share)
            share = done / total

        report = collect_imatrix(
            path,
            texts,
            out,
            dataset=args.calibration.name if args.calibration else "tapster",
            chunk_tokens=args.chunk_tokens,
            resume=not args.no_resume,
            threads=args.threads,
            progress=move,
        )
    facts = {
        "path": str(out),
        "chunks": report.chunks,
        "resumed_chunks": report.resumed_chunks,
        "weights": report.weights,
    }
    if args.json:
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    else:
        sys.stdout.write(f"{out}  ({report.weights} weights, {report.chunks} chunks of text)\n")
    return 0
