"""A checkpoint as mlx-lm's model, quantized lazily: nothing is computed before an array is written."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.checkpoint_files import weight_names
from ...runtime.errors import ConversionError
from ..checkpoint.checkpoint import Checkpoint
from .config import Family
from .options import MlxOptions

if TYPE_CHECKING:
    import mlx.core as mx

_ARCEE = "...runtime.engines.mlx.arcee"
_EXTRA = "MLX needs mlx-lm: pip install 'tapster[mlx]'"


@dataclass(frozen=True)
class LazyModel:
    """Arrays by their names on disk, in the model's order, not computed yet. ``quantization`` is what config.json
    says of them, None when all are bfloat16; ``fallbacks`` maps a tensor to the type it has instead of the chosen one.
    """

    arrays: dict[str, "mx.array"]
    quantization: dict[str, Any] | None
    fallbacks: dict[str, str]


def require_mlx() -> None:
    """ConversionError when mlx-lm is not installed."""
    try:
        import mlx.core  # noqa: F401 - only whether it is there
        import mlx_lm  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ConversionError(f"{_EXTRA} ({error})") from error


def model_file() -> str:
    """The text of our Arcee model, for a folder of its own."""
    module = import_module(_ARCEE, __package__)
    return Path(str(module.__file__)).read_text("utf-8")


def lazy_model(checkpoint: Checkpoint, config: dict[str, Any], family: Family, options: MlxOptions) -> LazyModel:
    """The whole model. ConversionError when the weights are not those of the config."""
    from mlx.utils import tree_flatten

    model = _with_weights(checkpoint, config, family)
    _cast(model)
    quantization, fallbacks = _quantize(model, options)
    arrays = dict(tree_flatten(model.parameters()))
    return LazyModel(arrays, quantization, fallbacks)


def _with_weights(checkpoint: Checkpoint, config: dict[str, Any], family: Family) -> Any:
    import mlx.core as mx

    if family.module is None:
        module = import_module(_ARCEE, __package__)
    else:
        module = import_module(f"mlx_lm.models.{family.module}")
    weights: dict[str, mx.array] = {}
    for path in _weight_files(checkpoint):
        loaded: Any = mx.load(str(path))  # lazy: the file is read when an array is computed
        weights |= loaded
    try:
        model = module.Model(module.ModelArgs.from_dict(config))
        model.load_weights(list(model.sanitize(weights).items() if hasattr(model, "sanitize") else weights.items()))
    except (ValueError, TypeError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConversionError(f"{checkpoint.path} does not fit mlx-lm's {config['model_type']}: {reason}") from error
    return model.eval()


def _weight_files(checkpoint: Checkpoint) -> list[Path]:
    return [checkpoint.path / name for name in weight_names([path.name for path in checkpoint.path.iterdir()])]


def _cast(model: Any) -> None:
    """Everything to bfloat16, but for what the model itself wants to keep."""
    import mlx.core as mx
    from mlx.utils import tree_map_with_path

    may_cast = getattr(model, "cast_predicate", lambda _name: True)

    def cast(name: str, array: mx.array) -> mx.array:
        is_float = mx.issubdtype(array.dtype, mx.floating)
        return array.astype(mx.bfloat16) if is_float and may_cast(name) else array

    model.update(tree_map_with_path(cast, model.parameters()))


def _quantize(model: Any, options: MlxOptions) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """Quantize every layer whose rows are whole groups; of the others those that are whole smaller groups with those.

    mlx-lm would leave all of the latter as they are and say nothing.
    """
    import mlx.nn as nn

    kind, group_size = options.kind, options.chosen_group_size
    if kind.mode is None or group_size is None:
        return None, {}
    chosen = {"group_size": group_size, "bits": kind.bits, "mode": kind.mode}
    quantization: dict[str, Any] = dict(chosen)
    fallbacks: dict[str, str] = {}

    def decide(path: str, module: Any) -> bool | dict[str, Any]:
        if not hasattr(module, "to_quantized"):
            return False
        row = module.weight.shape[-1]
        groups = next(_whole_groups(row, group_size, kind.group_sizes), None)
        if groups is None:
            fallbacks[f"{path}.weight"] = "bf16"
            return False
        if groups == group_size:
            return True
        quantization[path] = {**chosen, "group_size": groups}
        fallbacks[f"{path}.weight"] = f"{kind.name}-g{groups}"
        return quantization[path]

    nn.quantize(model, group_size, kind.bits, mode=kind.mode, class_predicate=decide)
    return quantization, fallbacks


def _whole_groups(row: int, chosen: int, allowed: tuple[int, ...]) -> Iterator[int]:
    """The chosen group size and smaller ones, the largest first, that divide a row."""
    return (size for size in sorted(allowed, reverse=True) if size <= chosen and row % size == 0)
