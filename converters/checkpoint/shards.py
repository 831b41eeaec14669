"""Find the weights of a checkpoint folder: one safetensors file, or the shards that an index names.

Pickles (``pytorch_model.bin``) run whatever code they hold when they are loaded, so they are never opened.
"""

from pathlib import Path

from ...runtime.checkpoint_files import SINGLE_WEIGHTS, WEIGHTS_INDEX, weight_names
from ...runtime.errors import ConversionError
from ...runtime.safetensors_header import shown
from .json_file import read_json
from .safetensors import CheckpointTensor, read_safetensors

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_PICKLE_ADVICE = (
    'python -c "from transformers import AutoModelForCausalLM as M; '
    "M.from_pretrained('{folder}', dtype='auto').save_pretrained('{folder}-safetensors')\""
)


def read_shards(folder: Path) -> dict[str, CheckpointTensor]:
    """All tensors of the checkpoint by name. ConversionError when a file is missing, damaged, or not to be read."""
    if (folder / SINGLE_WEIGHTS).is_file():
        return read_safetensors(folder / SINGLE_WEIGHTS)
    if (folder / WEIGHTS_INDEX).is_file():
        return _read_index(folder)
    names = weight_names([path.name for path in folder.iterdir()])
    if not names:
        raise _no_weights(folder)
    return _merged(_read_files(folder, names))


def _read_index(folder: Path) -> dict[str, CheckpointTensor]:
    path = folder / WEIGHTS_INDEX
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ConversionError(f"{path} has no weight_map from tensors to files: download it again")
    names = sorted(set(places.values()))
    for name in names:
        if name != Path(name).name:
            raise ConversionError(f"{path} names {shown(name)}, which is no file of its folder")
    shards = _read_files(folder, names)
    for tensor, name in places.items():
        if tensor not in shards[name]:
            raise ConversionError(f"{path} says that {shown(tensor)} is in {name}, and it is not: download both again")
    return _merged(shards)


def _read_files(folder: Path, names: list[str]) -> dict[str, dict[str, CheckpointTensor]]:
    """The tensors of each file, once all of them are known to be there."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ConversionError(
            f"the checkpoint {folder} is incomplete: {missing[0]} is missing ({len(missing)} of {len(names)} files); "
            f"download it again"
        )
    return {name: read_safetensors(folder / name) for name in names}


def _merged(shards: dict[str, dict[str, CheckpointTensor]]) -> dict[str, CheckpointTensor]:
    merged: dict[str, CheckpointTensor] = {}
    for name, tensors in shards.items():
        if twice := merged.keys() & tensors.keys():
            raise ConversionError(f"the tensor {shown(min(twice))} is in {name} and in another file as well: keep one")
        merged.update(tensors)
    return merged


def _no_weights(folder: Path) -> ConversionError:
    """Why there is nothing to read, and what to do about it."""
    if (folder / "adapter_config.json").is_file():
        return ConversionError(f"{folder} is an adapter, not a model: merge it into its base model first")
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        return ConversionError(
            f"{folder} has its weights in {pickles[0]}, a pickle, which can run any code and is never loaded: convert "
            f"it where you trust it, with {_PICKLE_ADVICE.format(folder=folder)}, or at "
            f"https://huggingface.co/spaces/safetensors/convert"
        )
    if ggufs := sorted(folder.glob("*.gguf")):
        return ConversionError(
            f"{folder} has no {SINGLE_WEIGHTS}, but {ggufs[0].name}: give that file instead of the folder"
        )
    if any(folder.glob("*.onnx")):
        return ConversionError(f"{folder} has an ONNX model, which cannot be converted: give what it was made from")
    return ConversionError(f"{folder} has no weights: neither {SINGLE_WEIGHTS} nor {WEIGHTS_INDEX}")
