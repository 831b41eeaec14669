"""What GGUF artifacts are made from, whichever the source: something to compare with, and a file in 16 bits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from .checkpoint.checkpoint import Checkpoint
from .gguf.architectures import embedding_rows, plan_model
from .gguf.metadata import STOP_STRINGS
from .gguf.plan import ModelPlan
from .gguf.types import quant_type
from .gguf.writer import WriteReport, write_gguf, write_ggufs
from .options import AUTO, ConvertOptions
from .outputs import Output
from .progress import Progress
from .proof.source import ProofSource, checkpoint_source, gguf_source
from .source import GGUFSource
from .tokenizer.check import TokenizerReport, check_tokenizer
from .tokenizer.read import read_vocabulary
from .tokenizer.source import open_tokenizer


@dataclass(frozen=True)
class Material:
    """``reference`` is the GGUF file in 16 (or 32) bits that is quantized and compared with; None when none is needed.

    ``tokenizer`` is the comparison of the two tokenizers, None when none was made. ``notes`` are for the user.
    """

    source: ProofSource
    reference: Path | None
    parameters: int
    tokenizer: TokenizerReport | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """A file made directly, still in the workspace."""

    output: Output
    path: Path
    report: WriteReport


def is_direct(output: Output, options: ConvertOptions) -> bool:
    """Whether it is written straight from a checkpoint. Single tensors of other types are llama.cpp's work."""
    kind = quant_type(output.target.type)
    has_choices = bool(options.tensor_types or options.output_type or options.embedding_type)
    return kind.direct and not (has_choices and kind.bits < 16)


def from_gguf(source: GGUFSource) -> Material:
    """A 16-bit GGUF file is its own reference. ConversionError when it is quantized."""
    source.require_unquantized()
    found = gguf_source(source.path)
    return Material(found, source.path, sum(prod(tensor.shape) for tensor in found.tensors.values()))


def from_checkpoint(
    checkpoint: Checkpoint, outputs: Sequence[Output], options: ConvertOptions, place: Path, progress: Progress
) -> tuple[Material, list[Written]]:
    """Write the direct types, and the reference if another one needs it, in one read of the checkpoint."""
    plan = plan_checkpoint(checkpoint)
    report = _checked_tokenizer(checkpoint, plan, place, progress) if options.verify else None
    direct = [output for output in outputs if is_direct(output, options)]
    files = [(place / output.path.name, output.target.type) for output in direct]
    reference = _reference(checkpoint, files, place) if _needs_reference(outputs, options) else None
    if reference is not None and reference not in files:
        files.append(reference)
    num_bytes = sum(source.num_bytes for tensor in plan.tensors for source in tensor.sources)
    what = ", ".join(type_name for _, type_name in files)
    with progress.stage(f"Writing {what}", num_bytes, "bytes") as advance:
        reports = write_ggufs(files, plan, clamp=options.clamp, advance=advance)
    written = [Written(*row) for row in zip(direct, (path for path, _ in files), reports, strict=False)]
    notes = [*plan.notes, *(report.notes if report else ())]
    parameters = sum(prod(tensor.shape) for tensor in plan.tensors)
    found = Material(
        checkpoint_source(checkpoint, plan), reference[0] if reference else None, parameters, report, notes
    )
    return found, written


def plan_checkpoint(checkpoint: Checkpoint) -> ModelPlan:
    """The file that a checkpoint becomes. ConversionError where the format cannot hold it."""
    return plan_model(checkpoint, read_vocabulary(checkpoint, embedding_rows(checkpoint)))


def write_reference(checkpoint: Checkpoint, place: Path, progress: Progress) -> Path:
    """The checkpoint as a GGUF file that loses nothing. ConversionError where the format cannot hold it."""
    plan = plan_checkpoint(checkpoint)
    path, kind = _reference(checkpoint, [], place)
    num_bytes = sum(source.num_bytes for tensor in plan.tensors for source in tensor.sources)
    with progress.stage("Writing the reference", num_bytes, "bytes") as advance:
        write_gguf(path, plan, kind, advance=advance)
    return path


def _checked_tokenizer(checkpoint: Checkpoint, plan: ModelPlan, place: Path, progress: Progress) -> TokenizerReport:
    """Before a single tensor is written: llama.cpp loads a file that has only a vocabulary."""
    bare = place / "vocabulary.gguf"
    with progress.stage("Checking the tokenizer"):
        write_gguf(bare, ModelPlan(plan.architecture, plan.metadata, []), "F32")
        stops = plan.metadata.get(STOP_STRINGS)
        texts = list(map(str, stops)) if isinstance(stops, list) else []
        report = check_tokenizer(open_tokenizer(checkpoint), bare, texts)
    bare.unlink()
    return report


def _needs_reference(outputs: Sequence[Output], options: ConvertOptions) -> bool:
    """Everything that is quantized is compared with 16 bits, and what is not written directly is made from them."""
    is_quantized = any(quant_type(output.target.type).bits < 16 for output in outputs)
    return (
        options.imatrix == AUTO
        or any(not is_direct(output, options) for output in outputs)
        or (is_quantized and options.verify)
    )


def _reference(checkpoint: Checkpoint, files: Sequence[tuple[Path, str]], place: Path) -> tuple[Path, str]:
    """A file that is made anyway and loses nothing, else one more that is removed at the end.

    Checkpoints in float32 are compared in float32: bfloat16 would lose, and float16 may overflow.
    """
    num_bytes: Counter[str] = Counter()
    for tensor in checkpoint.tensors.values():
        num_bytes[tensor.dtype] += tensor.num_bytes
    native = num_bytes.most_common(1)[0][0]
    kind = native if native in ("BF16", "F16") else "F32"
    lossless = {kind, "F32"}
    return next((file for file in files if file[1] in lossless), (place / f"{checkpoint.name}-{kind}.gguf", kind))
