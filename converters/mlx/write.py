"""From a checkpoint to an MLX folder that mlx-lm loads as it is."""

import json
import os
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

from ...runtime.errors import ConversionError
from ..checkpoint.checkpoint import Checkpoint
from ..folder import FolderReport, write_companions
from ..progress import Progress
from .config import ARCEE_FILE, mlx_config
from .model import lazy_model, model_file, require_mlx
from .options import MlxOptions
from .reader import read_mlx
from .safetensors import write_arrays


def write_mlx(checkpoint: Checkpoint, folder: Path, options: MlxOptions, progress: Progress) -> FolderReport:
    """Write ``folder``, which is made if need be. ConversionError for what mlx-lm could not hold or would get wrong.

    What lies in the folder when this ends early (an error, Ctrl-C) is not a model: write into a workspace.
    """
    require_mlx()
    started = perf_counter()
    config, family, _ = mlx_config(checkpoint)
    model = lazy_model(checkpoint, config, family, options)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {name: tensor.num_bytes for name, tensor in checkpoint.tensors.items()}
    try:
        with progress.stage(f"Writing {folder.name}", sum(sizes.values()), "bytes") as advance:
            write_arrays(
                folder,
                model.arrays,
                lambda name: advance(sizes.get(name, 0)),
                sum(prod(tensor.shape) for tensor in checkpoint.tensors.values()),
            )
        write_companions(checkpoint, folder)
        _write_config(folder, config, model.quantization)
        if "model_file" in config:
            (folder / ARCEE_FILE).write_text(model_file(), "utf-8")
    except OSError as error:
        raise ConversionError(f"cannot write {folder}: {os.strerror(error.errno or 0)}") from error
    return FolderReport(perf_counter() - started, read_mlx(folder), model.fallbacks)


def conversion_notes(checkpoint: Checkpoint) -> list[str]:
    """What a user should know of this checkpoint as an MLX folder. ConversionError as ``write_mlx`` raises it."""
    return mlx_config(checkpoint)[2]


def _write_config(folder: Path, config: dict[str, Any], quantization: dict[str, Any] | None) -> None:
    """Sorted, as mlx-lm writes it, with the quantization under both names that programs look for."""
    config = {**config, "dtype": "bfloat16", "torch_dtype": "bfloat16"}
    if quantization is not None:
        config |= {"quantization": quantization, "quantization_config": quantization}
    text = json.dumps(config, indent=4, sort_keys=True, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", "utf-8")
