"""What a model's folder weighs: its files of weights and the tensors in them, by headers only."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from .checkpoint_files import GENAI_CONFIG, SINGLE_WEIGHTS, WEIGHTS_INDEX, weight_names
from .errors import ModelError
from .folder_configs import FolderConfigs
from .json_file import read_json
from .model_folder import is_mlx_quantization, onnx_file
from .onnx_graph import Blocks, OnnxGraph, check_data, read_graph
from .safetensors_header import StoredTensor, read_tensors, shown

_NO_WEIGHTS = ("int64", "int32", "bool", "string")


@dataclass(frozen=True, slots=True)
class WeightTensor:
    """One tensor of the model. A quantized one with its scales: ``parameters`` are the model's, not the file's."""

    name: str
    type: str
    parameters: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FolderWeights:
    """``quantization`` has ``mode``, ``bits`` and ``group_size``, of what most of the model is in; None: it is not
    quantized. ``file_type`` is what the whole is called by, as after ``--to FORMAT:``."""

    files: list[Path]
    tensors: list[WeightTensor]
    file_type: str
    quantization: dict[str, Any] | None = None


def read_weights(configs: FolderConfigs, model_format: str) -> FolderWeights:
    """The weights of a folder. ModelError when a file is missing or damaged."""
    if model_format == "onnx":
        return _onnx_weights(configs)
    files = weight_files(configs.path)
    stored = {name: tensor for file in files for name, tensor in read_tensors(file).items()}
    quantization = configs.config.get("quantization")
    if model_format == "mlx":
        return _mlx_weights(files, stored, quantization if is_mlx_quantization(quantization) else None)
    tensors = [WeightTensor(one.name, one.dtype, one.parameters, one.size_bytes) for one in stored.values()]
    return FolderWeights(files, tensors, _quant_method(configs.config) or _main_type(tensors))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, of MLX's too. ModelError when one is missing; none are an empty list."""
    names = _indexed(folder) or weight_names([path.name for path in folder.iterdir()])
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"the model in {folder} is incomplete: {missing[0]} is missing ({len(missing)} of {len(names)} files); "
            f"download it again"
        )
    return [folder / name for name in names]


def _indexed(folder: Path) -> list[str]:
    """The files that the index names, where it counts."""
    path = folder / WEIGHTS_INDEX
    if (folder / SINGLE_WEIGHTS).is_file() or not path.is_file():
        return []
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ModelError(f"{path} has no weight_map from tensors to files: download it again")
    names = sorted(set(places.values()))
    for name in names:
        if name != Path(name).name:
            raise ModelError(f"{path} names {shown(name)}, which is no file of its folder")
    return names


def _main_type(tensors: Iterable[WeightTensor]) -> str:
    """The type of most of the bytes."""
    num_bytes: Counter[str] = Counter()
    for tensor in tensors:
        num_bytes[tensor.type] += tensor.size_bytes
    return num_bytes.most_common(1)[0][0] if num_bytes else "unknown"


def _quant_method(config: Mapping[str, Any]) -> str | None:
    """How a checkpoint was quantized by another program (gptq, awq, fp8 …); None: it was not."""
    found = config.get("quantization_config")
    method = found.get("quant_method") if isinstance(found, dict) else None
    return method if isinstance(method, str) else None


def _mlx_weights(
    files: list[Path], stored: Mapping[str, StoredTensor], quantization: Mapping[str, Any] | None
) -> FolderWeights:
    """MLX packs a quantized ``X.weight`` into words of 32 bits, with ``X.scales`` and mostly ``X.biases`` beside it."""
    tensors: list[WeightTensor] = []
    for name, tensor in stored.items():
        module, _, part = name.rpartition(".")
        scales = stored.get(f"{module}.scales")
        is_packed = scales is not None and quantization is not None and f"{module}.weight" in stored
        if is_packed and part == "weight":
            tensors.append(_packed(module, stored, quantization or {}))
        elif not (is_packed and part in ("scales", "biases")):
            tensors.append(WeightTensor(name, tensor.dtype, tensor.parameters, tensor.size_bytes))
    if quantization is None:
        return FolderWeights(files, tensors, _main_type(tensors).lower())
    mode, bits = quantization.get("mode") or "affine", quantization["bits"]
    whole = {"mode": mode, "bits": bits, "group_size": quantization["group_size"]}
    return FolderWeights(files, tensors, f"{bits}bit" if mode == "affine" else str(mode), whole)


def _packed(module: str, stored: Mapping[str, StoredTensor], quantization: Mapping[str, Any]) -> WeightTensor:
    own = quantization.get(module)
    settings = {**quantization, **(own if isinstance(own, dict) else {})}
    scales, weight = stored[f"{module}.scales"], stored[f"{module}.weight"]
    group_size = settings["group_size"]
    if type(group_size) is not int or group_size < 1:
        raise ModelError(f"config.json quantizes {shown(module)} in groups of {shown(group_size)}: download it again")
    parameters = prod(scales.shape) * group_size
    bits = round(weight.size_bytes * 8 / parameters) if parameters else 0
    mode = settings.get("mode") or "affine"
    label = f"{bits}bit" if mode == "affine" else str(mode)
    parts = [stored[name] for name in (f"{module}.{part}" for part in ("weight", "scales", "biases")) if name in stored]
    return WeightTensor(
        f"{module}.weight", f"{label}-g{group_size}", parameters, sum(part.size_bytes for part in parts)
    )


def _onnx_weights(configs: FolderConfigs) -> FolderWeights:
    path = onnx_file(configs.path, dict(configs.files[GENAI_CONFIG]))
    graph = read_graph(path)
    files = [path, *check_data(path.parent, graph, path)]
    tensors = list(_onnx_tensors(graph))
    quantization = _main_blocks(list(graph.blocks.values()))
    return FolderWeights(files, tensors, _main_type(tensors).partition("-")[0], quantization)


def _onnx_tensors(graph: OnnxGraph) -> Iterator[WeightTensor]:
    """The weights, without what only steers the graph. Two names of one place in a file, as of tied embeddings, are
    one tensor."""
    companions = {name for found in graph.blocks.values() for name in found.companions}
    places: set[tuple[str, int]] = set()
    for name, tensor in graph.tensors.items():
        if tensor.type in _NO_WEIGHTS or name in companions or (tensor.location, tensor.offset) in places:
            continue
        if tensor.location is not None and tensor.size_bytes:
            places.add((tensor.location, tensor.offset))
        found = graph.blocks.get(name)
        if found is not None:
            num_bytes = tensor.size_bytes + sum(graph.tensors[other].size_bytes for other in found.companions)
            yield WeightTensor(name, f"int{found.bits}-g{found.block_size}", found.parameters, num_bytes)
        else:
            parameters = 0 if name in graph.tables else prod(tensor.shape)  # a table was worked out, not trained
            yield WeightTensor(name, tensor.type, parameters, tensor.size_bytes)


def _main_blocks(blocks: Sequence[Blocks]) -> dict[str, Any] | None:
    """The kind of blocks that most parameters are in."""
    if not blocks:
        return None
    parameters: Counter[tuple[int, int]] = Counter()
    for found in blocks:
        parameters[found.bits, found.block_size] += found.parameters
    (bits, block_size), _ = parameters.most_common(1)[0]
    return {"mode": "int", "bits": bits, "group_size": block_size}
