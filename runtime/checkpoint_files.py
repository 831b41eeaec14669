"""Which files of a Hugging Face repository or folder are a model that is a folder, by their names.

Only what is data is among them: settings, the tokenizer, templates, and weights as safetensors or ONNX. Pickles and
Python files, which can run code, are not.
"""

import re
from collections.abc import Collection

from .errors import ModelError

SINGLE_WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
GENAI_CONFIG = "genai_config.json"
_PART = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
_ONNX = re.compile(r"[^/]+\.onnx(?:[._]data(?:_\d+)?)?")
_SETTINGS = (
    *("generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("chat_template.jinja", "chat_template.json", "README.md"),
)
_TEMPLATE = re.compile(r"additional_chat_templates/[^/]+\.jinja")


def weight_names(names: Collection[str]) -> list[str]:
    """The files that hold the weights, also those of them that are not among ``names``. Empty when there are none."""
    if SINGLE_WEIGHTS in names:
        return [SINGLE_WEIGHTS]
    count = max((int(found[2]) for name in names if (found := _PART.fullmatch(name))), default=0)
    return [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]


def checkpoint_names(names: Collection[str], where: str) -> list[str]:
    """The files of the checkpoint among ``names``, ``config.json`` first. ModelError when they are no whole one."""
    weights = weight_names(names)
    if CONFIG not in names or not weights:
        raise ModelError(f"{where} has no checkpoint: {what_is_missing(names)}")
    if missing := [name for name in weights if name not in names]:
        raise ModelError(f"the checkpoint in {where} is incomplete: {missing[0]} is missing")
    index = [WEIGHTS_INDEX] if len(weights) > 1 and WEIGHTS_INDEX in names else []
    return [CONFIG, *small_names(names), *index, *weights]


def folder_names(names: Collection[str], where: str, formats: Collection[str]) -> list[str]:
    """The files of the model among ``names`` that is a folder of one of the formats, a file at its root first.
    ModelError when there is none, or not all of it. Hugging Face's and MLX's folders have files of the same names."""
    has_checkpoint = bool(weight_names(names)) and ("hf" in formats or "mlx" in formats)
    has_onnx = any(name.endswith(".onnx") and "/" not in name for name in names) and "onnx" in formats
    if has_onnx and (GENAI_CONFIG in names or not has_checkpoint):
        return onnx_names(names)
    if has_checkpoint:
        return checkpoint_names(names, where)
    raise ModelError(f"{where} has no model that can be run: {what_is_missing(names)}")


def onnx_names(names: Collection[str]) -> list[str]:
    """The files of an ONNX model: its settings first, then the graphs and their data."""
    settings = [name for name in (CONFIG, GENAI_CONFIG) if name in names]
    return [*settings, *small_names(names), *sorted(name for name in names if _ONNX.fullmatch(name))]


def small_names(names: Collection[str]) -> list[str]:
    """What a model has besides its weights and ``config.json``."""
    return [
        *(name for name in _SETTINGS if name in names),
        *sorted(name for name in names if _TEMPLATE.fullmatch(name)),
    ]


def what_is_missing(names: Collection[str]) -> str:
    """Why the files are no model in a folder."""
    if any(name.endswith(".gguf") for name in names):
        return "it holds GGUF files"
    if CONFIG not in names:
        return "it has no config.json"
    if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        return (
            "its weights are pickles, which can run any code and are never loaded; convert them at "
            "https://huggingface.co/spaces/safetensors/convert"
        )
    if folders := sorted({name.rpartition("/")[0] for name in names if name.endswith(".onnx")} - {""}):
        return f"its ONNX files lie in folders of it ({', '.join(folders[:5])}); put one beside its config.json"
    return f"it has neither {SINGLE_WEIGHTS} nor its parts"
