"""The architectures that can be written as GGUF: from a checkpoint and its vocabulary to a plan of the file."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from ....runtime.errors import ConversionError
from ...checkpoint.checkpoint import Checkpoint
from ...tokenizer.vocabulary import Vocabulary
from ..metadata import general_metadata, sampling_metadata, start_metadata, stop_metadata
from ..plan import ModelPlan
from ..templates import template_metadata
from .arcee import plan_arcee
from .base import Builder
from .config import Config
from .gemma import plan_gemma3
from .kimi_linear import plan_kimi_linear
from .llama import plan_llama, plan_mistral, plan_smollm3
from .qwen import plan_qwen2, plan_qwen3
from .stablelm import plan_stablelm
from .tensors import TensorSource


@dataclass(frozen=True, slots=True)
class Architecture:
    """What ``model_type`` and ``architectures`` in config.json call it, what GGUF calls it, and what plans it."""

    model_types: tuple[str, ...]
    classes: tuple[str, ...]
    name: str
    plan: Callable[[Builder], None]


ARCHITECTURES = (
    Architecture(("llama",), ("LlamaForCausalLM", "LLaMAForCausalLM"), "llama", plan_llama),
    Architecture(("mistral",), ("MistralForCausalLM",), "llama", plan_mistral),
    Architecture(("smollm3",), ("SmolLM3ForCausalLM",), "smollm3", plan_smollm3),
    Architecture(("qwen2",), ("Qwen2ForCausalLM",), "qwen2", plan_qwen2),
    Architecture(("qwen3",), ("Qwen3ForCausalLM",), "qwen3", plan_qwen3),
    Architecture(
        ("stablelm", "stablelm_epoch"), ("StableLmForCausalLM", "StableLMEpochForCausalLM"), "stablelm", plan_stablelm
    ),
    Architecture(("arcee",), ("ArceeForCausalLM",), "arcee", plan_arcee),
    Architecture(
        ("gemma3_text", "gemma3"), ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"), "gemma3", plan_gemma3
    ),
    Architecture(("kimi_linear",), ("KimiLinearForCausalLM",), "kimi-linear", plan_kimi_linear),
)

_EMBEDDING = "embed_tokens.weight"
_NO_TEXT = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")


def plan_model(checkpoint: Checkpoint, vocabulary: Vocabulary) -> ModelPlan:
    """The whole GGUF file. ConversionError for whatever it could not hold."""
    architecture = find_architecture(checkpoint.config)
    build = Builder(architecture.name, Config(_text_config(checkpoint.config), architecture.name), _tensors(checkpoint))
    architecture.plan(build)
    build.config.refuse_unknown()
    build.tensors.refuse_leftover(architecture.name, build.reasons)
    if len(vocabulary.tokens) != build.sizes["vocab"]:
        raise ConversionError(
            f"the vocabulary has {len(vocabulary.tokens)} tokens and config.json vocab_size = {build.sizes['vocab']}"
        )
    if "auto_map" in checkpoint.config:
        build.notes.append("the checkpoint brings code of its own (auto_map), which was not read")
    if "text_config" in checkpoint.config:
        build.notes.append("only the text model is converted: images stay behind")
    stops = stop_metadata(checkpoint, vocabulary, build.notes)
    metadata = {
        **general_metadata(checkpoint, architecture.name, build.plans),
        **sampling_metadata(checkpoint.generation_config, build.notes),
        **build.metadata,
        **vocabulary.metadata(),
        **template_metadata(checkpoint.chat_templates),
        **stops,
        **start_metadata(checkpoint, vocabulary, stops, build.notes),
    }
    return ModelPlan(architecture.name, metadata, build.plans, build.notes)


def find_architecture(config: dict[str, Any]) -> Architecture:
    """By the name of the class, else by ``model_type``. ConversionError with the known names."""
    classes = config.get("architectures") or []
    model_type = config.get("model_type")
    name = classes[0] if isinstance(classes, list) and classes else None
    for architecture in ARCHITECTURES:
        if name in architecture.classes or (not name and model_type in architecture.model_types):
            return architecture
    known = [known for architecture in ARCHITECTURES for known in architecture.classes]
    wrong = str(name or model_type or "")
    near = get_close_matches(wrong, known, 1, 0.6)
    if near:
        known.sort(key=lambda other: other != near[0])
    raise ConversionError(
        f"config.json names the architecture {wrong!r}, which tapster cannot convert: it knows {', '.join(known)}"
    )


def embedding_rows(checkpoint: Checkpoint) -> int:
    """How many tokens the embedding has rows for; the vocabulary is padded to as many. ConversionError."""
    for name, tensor in checkpoint.tensors.items():
        if name.endswith(_EMBEDDING) and len(tensor.shape) == 2 and "vision" not in name:
            return tensor.shape[0]
    raise ConversionError(f"the checkpoint has no tensor that ends in {_EMBEDDING}: is it a language model?")


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config of the text model, where that is one part of several."""
    text = config.get("text_config")
    if not isinstance(text, dict):
        return config
    outer = {key: config[key] for key in ("tie_word_embeddings",) if key in config}
    return {**outer, **text}


def _tensors(checkpoint: Checkpoint) -> TensorSource:
    """The tensors of the language model, by the names that it has when it stands alone."""
    if "text_config" not in checkpoint.config:
        return TensorSource(checkpoint.tensors)
    renamed = {_plain_name(name): tensor for name, tensor in checkpoint.tensors.items()}
    return TensorSource(renamed, dropped=_NO_TEXT)


def _plain_name(name: str) -> str:
    """``language_model.model.X`` (older) and ``model.language_model.X`` (newer) are the ``model.X`` of a text model."""
    if name.startswith("model.language_model."):
        return "model." + name.removeprefix("model.language_model.")
    return name.removeprefix("language_model.")
