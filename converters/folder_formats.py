"""The formats whose artifacts are folders: what each needs installed, whether it can hold a checkpoint, its writer.

The writers' rooms are imported when one of them is asked for.
"""

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from ..runtime.engines.registry import choose_engine
from ..runtime.errors import ConversionError, ModelError
from .checkpoint.checkpoint import Checkpoint
from .folder import FolderReport
from .mlx.options import MlxOptions
from .onnx.options import OnnxOptions
from .progress import Progress
from .proof.divergence import NUM_TOKENS
from .targets import Target

_NEEDS = {"mlx": ("mlx", "mlx_lm"), "onnx": ("onnx_ir",)}


def require_installed(targets: Iterable[Target], *, verify: bool) -> None:
    """ConversionError, with the command that helps, when a target could not be written, or not be run to be proved."""
    for target in targets:
        for name in _NEEDS[target.format]:
            if importlib.util.find_spec(name) is None:
                install = f"pip install 'tapster[{target.format}]'"
                raise ConversionError(f"{target} needs {name}, which is not installed: {install}")
        if verify:
            try:
                choose_engine(target.format).require_installed()
            except ModelError as error:
                raise ConversionError(f"{target} cannot be proved: {error}; or give --no-verify") from error


def require_representable(checkpoint: Checkpoint, targets: Iterable[Target]) -> list[str]:
    """ConversionError when a format cannot hold what the checkpoint computes. Else what a user should know of it."""
    formats = {target.format for target in targets}
    notes: list[str] = []
    if "mlx" in formats:
        from .mlx.write import conversion_notes

        notes += conversion_notes(checkpoint)
    if "onnx" in formats:
        from .onnx.architectures import read_decoder

        read_decoder(checkpoint)
    return notes


def usual_proof_tokens(model_format: str) -> int:
    """How many tokens a divergence is measured on unless the user says otherwise. mlx computes a few tokens a second
    on a CPU, where eight thousand of them take the better part of an hour."""
    if model_format == "mlx":
        import mlx.core as mx

        if mx.default_device() == mx.cpu:
            return 512
    return NUM_TOKENS


def write_folder(
    checkpoint: Checkpoint, folder: Path, options: MlxOptions | OnnxOptions, progress: Progress
) -> FolderReport:
    """Write an artifact into ``folder``, which is there. ConversionError."""
    if isinstance(options, MlxOptions):
        from .mlx.write import write_mlx

        return write_mlx(checkpoint, folder, options, progress)
    from .onnx.write import write_onnx

    return write_onnx(checkpoint, folder, options, progress)
