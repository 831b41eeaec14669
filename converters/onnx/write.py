"""Write a checkpoint as an ONNX folder: graph, weights, and what the programs that load it want beside them."""

import json
import time
from pathlib import Path
from typing import Any

from ...runtime.errors import ConversionError
from ...runtime.uninterrupted import uninterrupted
from ..checkpoint.checkpoint import Checkpoint
from ..folder import FolderReport, write_companions
from ..progress import Progress, Silent
from .architectures import read_decoder
from .genai import genai_config
from .graph import build_model
from .nodes import DATA_FILE
from .options import OnnxOptions
from .plan import FolderPlan, plan_folder
from .reader import GRAPH_FILE, artifact_tensors
from .stream import DataFile


def write_onnx(
    checkpoint: Checkpoint, folder: Path, options: OnnxOptions, progress: Progress | None = None
) -> FolderReport:
    """Write into ``folder``, which is there. ConversionError for whatever the graph or the type could not hold."""
    require_onnx()
    started = time.perf_counter()
    decoder = read_decoder(checkpoint)
    plan = plan_folder(decoder, options)
    data = DataFile(folder / DATA_FILE, plan.data_bytes, clamp=options.clamp)
    total = sum(part.num_bytes for linear in plan.linears for part in linear.parts)
    with (progress or Silent()).stage(f"Writing {folder.name}", total, "bytes") as advance:
        data.write(plan, advance)
    _save_graph(plan, folder / GRAPH_FILE)
    _write_json(folder / "genai_config.json", genai_config(decoder, checkpoint))
    _write_json(folder / "config.json", checkpoint.config)
    write_companions(checkpoint, folder)
    return FolderReport(
        seconds=time.perf_counter() - started,
        tensors=artifact_tensors(plan, folder),
        fallbacks=plan.fallbacks,
        clamped=data.clamped,
    )


def require_onnx() -> None:
    """ConversionError with the command that installs what is missing."""
    try:
        with uninterrupted():
            import onnx_ir  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ConversionError(
            f"ONNX needs packages that are not installed ({error.name}): pip install 'tapster[onnx]'"
        ) from error


def _save_graph(plan: FolderPlan, path: Path) -> None:
    import onnx_ir as ir

    path.write_bytes(ir.to_proto(build_model(plan)).SerializeToString(deterministic=True))


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
