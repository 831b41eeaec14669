"""Which files of a Hugging Face repository or folder are a checkpoint, by their names.

Only what is data is among them: settings, the tokenizer, templates, and weights as safetensors. Pickles and Python
files, which can run code, are not.
"""

import re
from collections.abc import Collection

from .errors import ModelError

SINGLE_WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
_PART = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
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
        raise ModelError(f"{where} has no checkpoint to convert: {_what_is_missing(names)}")
    if missing := [name for name in weights if name not in names]:
        raise ModelError(f"the checkpoint in {where} is incomplete: {missing[0]} is missing")
    index = [WEIGHTS_INDEX] if len(weights) > 1 and WEIGHTS_INDEX in names else []
    templates = sorted(name for name in names if _TEMPLATE.fullmatch(name))
    return [CONFIG, *(name for name in _SETTINGS if name in names), *templates, *index, *weights]


def _what_is_missing(names: Collection[str]) -> str:
    if any(name.endswith(".gguf") for name in names):
        return "it holds GGUF files"
    if CONFIG not in names:
        return "it has no config.json"
    if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        return (
            "its weights are pickles, which can run any code and are never loaded; convert them at "
            "https://huggingface.co/spaces/safetensors/convert"
        )
    return f"it has neither {SINGLE_WEIGHTS} nor its parts"
