"""From config.json to a decoder: one small table of differences for each architecture.

Every key of the config is understood, known to be harmless, or refused; so is every tensor.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ...runtime.errors import ConversionError
from ..checkpoint.checkpoint import Checkpoint
from ..gguf.architectures.tensors import TensorSource
from .config import GraphConfig
from .decoder import Decoder
from .parts import Parts, Sizes
from .rope import read_rotary
from .windows import read_windows

_ALL_ROPES = ("linear", "dynamic", "yarn", "llama3")


@dataclass(frozen=True, slots=True)
class Family:
    """What sets an architecture apart. Defaults are what transformers takes for a key that is absent."""

    name: str
    classes: tuple[str, ...]
    model_types: tuple[str, ...]
    context: int
    theta: float = 10000.0
    partial: float = 1.0
    epsilon: tuple[str, float] = ("rms_norm_eps", 1e-6)
    head_size: int | None = None
    tied: bool = False
    activation: tuple[str, ...] = ("silu", "swish")
    qkv_bias: Callable[[GraphConfig], bool] = lambda config: config.flag("attention_bias", False)
    output_bias: Callable[[GraphConfig], bool] = lambda config: config.flag("attention_bias", False)
    window_default: bool = True
    absent_window: int | None = None
    first_window_key: str | None = None


def _never(_: GraphConfig) -> bool:
    return False


FAMILIES = (
    Family("llama", ("LlamaForCausalLM", "LLaMAForCausalLM"), ("llama",), 2048),
    Family(
        "mistral",
        ("MistralForCausalLM",),
        ("mistral",),
        131072,
        absent_window=4096,
        qkv_bias=_never,
        output_bias=_never,
    ),
    Family("smollm3", ("SmolLM3ForCausalLM",), ("smollm3",), 32768, theta=2_000_000.0, tied=True, window_default=False),
    Family(
        "qwen2",
        ("Qwen2ForCausalLM",),
        ("qwen2",),
        32768,
        qkv_bias=lambda _: True,
        output_bias=_never,
        window_default=False,
        absent_window=4096,
        first_window_key="max_window_layers",
    ),
    Family(
        "qwen3",
        ("Qwen3ForCausalLM",),
        ("qwen3",),
        32768,
        head_size=128,
        window_default=False,
        absent_window=4096,
        first_window_key="max_window_layers",
    ),
    Family(
        "stablelm",
        ("StableLmForCausalLM", "StableLMEpochForCausalLM"),
        ("stablelm", "stablelm_epoch"),
        4096,
        partial=0.25,
        epsilon=("layer_norm_eps", 1e-5),
        output_bias=_never,
        qkv_bias=lambda config: config.flag("use_qkv_bias", False),
    ),
    Family("arcee", ("ArceeForCausalLM",), ("arcee",), 4096, epsilon=("rms_norm_eps", 1e-5), activation=("relu2",)),
)


def read_decoder(checkpoint: Checkpoint) -> Decoder:
    """The decoder of a checkpoint. ConversionError for whatever the graph could not compute."""
    family = find_family(checkpoint)
    config = GraphConfig(checkpoint.config, family.name)
    tensors = TensorSource(checkpoint.tensors)
    decoder = _read(family, config, tensors)
    config.refuse_unknown()
    unused = f"the graph of {family.name} does not use it, so the model would compute something else"
    tensors.refuse_leftover(family.name, {"": unused})
    if "auto_map" in checkpoint.config:
        decoder.notes.append("the checkpoint brings code of its own (auto_map), which was not read")
    return decoder


def find_family(checkpoint: Checkpoint) -> Family:
    """By the name of the class, else by ``model_type``. ConversionError with the known names."""
    classes = checkpoint.config.get("architectures") or []
    name = classes[0] if isinstance(classes, list) and classes else None
    model_type = checkpoint.config.get("model_type")
    for family in FAMILIES:
        if name in family.classes or (not name and model_type in family.model_types):
            return family
    known = ", ".join(family.classes[0] for family in FAMILIES)
    raise ConversionError(
        f"config.json names the architecture {str(name or model_type or '')!r}, which tapster cannot write as ONNX: it "
        f"writes {known}"
    )


def _read(family: Family, config: GraphConfig, tensors: TensorSource) -> Decoder:
    sizes = _read_sizes(family, config, tensors)
    config.only("hidden_act", *family.activation, why=f"the graph of {family.name} has only {family.activation[0]}")
    positions = _position_schedule(family, config, sizes.layers)
    windows = read_windows(family, config, sizes, positions)
    rotary = read_rotary(
        config,
        () if family.name == "stablelm" else _ALL_ROPES,
        theta=family.theta,
        partial=config.number("rope_pct", family.partial) if family.name == "stablelm" else family.partial,
        head_size=sizes.head,
        context=sizes.context,
    )
    parts = Parts(
        sizes,
        tensors,
        is_layer_norm=family.name == "stablelm",
        is_gated=family.activation[0] != "relu2",
        has_qkv_bias=family.qkv_bias(config),
        has_output_bias=family.output_bias(config),
        has_mlp_bias=family.name in ("llama", "smollm3", "arcee") and config.flag("mlp_bias", False),
        has_head_norms=family.name == "qwen3",
        is_packed=rotary.fits_attention,
        has_stacked_norms=family.name == "stablelm" and config.flag("qk_layernorm", False),
        is_parallel=family.name == "stablelm" and config.flag("use_parallel_residual", False),
    )
    is_tied = config.flag("tie_word_embeddings", family.tied)
    return Decoder(
        architecture=family.name,
        vocabulary=sizes.vocabulary,
        hidden=sizes.hidden,
        num_heads=sizes.heads,
        num_kv_heads=sizes.kv_heads,
        head_size=sizes.head,
        context=sizes.context,
        epsilon=_epsilon(family, config),
        rotary=rotary,
        embedding=parts.embedding(),
        layers=tuple(parts.layer(layer, positions[layer], windows[layer]) for layer in range(sizes.layers)),
        final_norm=parts.norm("model.norm", "model.norm"),
        head_matrix=parts.head_matrix(is_tied=is_tied),
    )


def _epsilon(family: Family, config: GraphConfig) -> float:
    if family.name == "stablelm":  # the older form has another name for it
        config.only("rotary_scaling_factor", 1, why="the graph of stablelm scales no rotary angles")
        return config.number("norm_eps", config.number(*family.epsilon))
    return config.number(*family.epsilon)


def _read_sizes(family: Family, config: GraphConfig, tensors: TensorSource) -> Sizes:
    layers = config.size("num_hidden_layers")
    if layers > len(tensors):
        raise ConversionError(
            f"config.json has num_hidden_layers = {layers}, and the checkpoint has {len(tensors)} tensors"
        )
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    kv_heads = config.size("num_key_value_heads", heads)
    head = config.size("head_dim", family.head_size or max(1, hidden // heads))
    if heads % kv_heads:
        raise ConversionError(
            f"config.json has num_attention_heads = {heads}, no multiple of num_key_value_heads = {kv_heads}"
        )
    if head % 8:
        raise ConversionError(
            f"config.json asks for heads of {head} dimensions: onnxruntime's attention takes multiples of 8"
        )
    return Sizes(
        layers=layers,
        hidden=hidden,
        feed_forward=config.size("intermediate_size"),
        heads=heads,
        kv_heads=kv_heads,
        head=head,
        vocabulary=config.size("vocab_size"),
        context=config.size("max_position_embeddings", family.context),
    )


def _position_schedule(family: Family, config: GraphConfig, layers: int) -> list[bool]:
    """Which layers have rotary positions: a 1 for each in SmolLM3's ``no_rope_layers``, any schedule."""
    if family.name != "smollm3":
        return [True] * layers
    interval = config.size("no_rope_layer_interval", 4)
    schedule = config.get("no_rope_layers", [int((layer + 1) % interval != 0) for layer in range(layers)])
    is_list = isinstance(schedule, list) and all(type(value) in (int, bool) for value in schedule)
    if not is_list or len(schedule) < layers:
        raise ConversionError(f"config.json has no_rope_layers = {schedule!r}: a 0 or 1 for each layer is needed")
    return [bool(value) for value in schedule[:layers]]
