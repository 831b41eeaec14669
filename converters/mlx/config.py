"""config.json as mlx-lm reads it, so that it computes what the checkpoint means.

mlx-lm takes the keys it knows and ignores the others in silence. So a key that changes the computation has to be one
that its model heeds, or to stand at the value at which it does nothing; everything else is refused. Three things are
written otherwise than transformers does:

* the rotary embedding in the older form (``rope_theta``, ``rope_scaling``): of transformers 5's ``rope_parameters``
  most of mlx-lm's models read nothing, and would take their default base;
* YaRN's ``attention_factor`` as the ``mscale`` that comes to the same, and its original context even where it is the
  default;
* ``tie_word_embeddings`` always: the defaults differ.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...runtime.engines.mlx.hf_config import mlx_keys
from ...runtime.errors import ConversionError
from ..checkpoint.checkpoint import Checkpoint
from ..gguf.architectures.config import Config, short
from ..gguf.architectures.rope import Rope, check_rope, read_rope

ARCEE_FILE = "arcee.py"
_SIZES = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size")


@dataclass(frozen=True, slots=True)
class Family:
    """One of mlx-lm's models: the module that has it, the checkpoints it computes, and what its config becomes.

    ``defaults`` are transformers' for keys that a config may leave out. A ``module`` of None is our own model file.
    """

    classes: tuple[str, ...]
    model_types: tuple[str, ...]
    module: str | None
    adapt: Callable[["Draft"], None]
    defaults: dict[str, Any] = field(default_factory=dict)


@dataclass
class Draft:
    """The config being read (``source``) and the one being made (``values``)."""

    source: Config
    values: dict[str, Any]
    family: Family
    has_output: bool
    notes: list[str] = field(default_factory=list)

    @property
    def context(self) -> int:
        return self.values["max_position_embeddings"]

    def keep(self, *keys: str) -> None:
        """Keys that mlx-lm reads as they are."""
        for key in keys:
            value = self.source.get(key, self.family.defaults.get(key))
            if value is not None:
                self.values[key] = value


class _Keys(Config):
    """The keys of one config.json, each of which has to be understood."""

    cannot = "there is no place for it in"


def mlx_config(checkpoint: Checkpoint) -> tuple[dict[str, Any], Family, list[str]]:
    """The config to write, the family it is of, and what a user should know. ConversionError."""
    family = find_family(checkpoint.config)
    model_type = family.model_types[0]
    source = _Keys(checkpoint.config, f"mlx-lm's {model_type}")
    draft = Draft(source, {"model_type": model_type}, family, "lm_head.weight" in checkpoint.tensors)
    for key in _SIZES:
        draft.values[key] = source.size(key)
    draft.values["num_key_value_heads"] = source.size("num_key_value_heads", draft.values["num_attention_heads"])
    draft.values["max_position_embeddings"] = source.size(
        "max_position_embeddings", family.defaults.get("max_position_embeddings", 2048)
    )
    family.adapt(draft)
    source.refuse_unknown()
    others = {key: value for key, value in checkpoint.config.items() if key not in _REPLACED}
    return {**others, **draft.values}, family, draft.notes


_REPLACED = ("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor", "quantization", "auto_map")


def find_family(config: dict[str, Any]) -> Family:
    """By the class's name, else by ``model_type``. ConversionError with the known ones."""
    classes = config.get("architectures") or []
    name = classes[0] if isinstance(classes, list) and classes else None
    for family in FAMILIES:
        if name in family.classes or (not name and config.get("model_type") in family.model_types):
            return family
    known = ", ".join(family.classes[0] for family in FAMILIES)
    wrong = str(name or config.get("model_type") or "")
    raise ConversionError(
        f"config.json names the architecture {wrong!r}, which tapster cannot write for MLX: it knows {known}"
    )


def _llama_like(draft: Draft) -> None:
    """What Llama, Mistral, SmolLM3, Qwen and Arcee share."""
    draft.keep("rms_norm_eps")
    _set_tied(draft)
    _set_rope(draft, ("linear", "dynamic", "yarn", "llama3"))


def _set_tied(draft: Draft) -> None:
    draft.values["tie_word_embeddings"] = draft.source.flag("tie_word_embeddings", not draft.has_output)


def _llama(draft: Draft) -> None:
    _llama_like(draft)
    _need_silu(draft)
    _need_full_attention(draft)
    draft.keep("head_dim", "attention_bias", "mlp_bias")


def _smollm3(draft: Draft) -> None:
    _llama(draft)
    draft.keep("no_rope_layers", "no_rope_layer_interval")


def _qwen2(draft: Draft) -> None:
    _llama_like(draft)
    _need_silu(draft)
    _need_full_attention(draft)
    _need_plain_heads(draft)


def _qwen3(draft: Draft) -> None:
    _llama_like(draft)
    _need_silu(draft)
    _need_full_attention(draft)
    draft.keep("head_dim")


def _arcee(draft: Draft) -> None:
    _llama_like(draft)
    _need_full_attention(draft)
    draft.source.only("hidden_act", "relu2", why="Arcee's feed-forward network computes ReLU²")
    draft.keep("head_dim", "attention_bias", "mlp_bias")
    draft.values["model_file"] = ARCEE_FILE
    draft.notes.append(
        f"mlx-lm has no Arcee: the folder brings its model as {ARCEE_FILE}, which mlx_lm and tapster load only with "
        "--trust-remote-code"
    )


def _stablelm(draft: Draft) -> None:
    source = draft.source
    _need_silu(draft)
    _need_full_attention(draft)
    _need_plain_heads(draft)
    draft.keep("qk_layernorm", "use_parallel_residual")
    draft.values["use_qkv_bias"] = source.flag("use_qkv_bias", False)
    draft.values["layer_norm_eps"] = source.number("norm_eps", source.number("layer_norm_eps", 1e-5))
    draft.values["tie_word_embeddings"] = False
    source.only("tie_word_embeddings", False, why="mlx-lm's stablelm has an output of its own")
    source.only("rotary_scaling_factor", 1, why="mlx-lm's stablelm scales no rotary angles")
    rope = read_rope(source, partial=source.number("rope_pct", 0.25))
    _check(rope, ())
    draft.values |= {"rope_theta": rope.theta, "partial_rotary_factor": rope.partial}


def _gemma3(draft: Draft) -> None:
    source = draft.source
    draft.keep("head_dim", "rms_norm_eps", "query_pre_attn_scalar", "sliding_window")
    source.only("hidden_activation", "gelu_pytorch_tanh", why="mlx-lm's gemma3 computes the tanh form of GELU only")
    source.ignore("hidden_act", "use_sliding_window")
    _set_tied(draft)
    draft.values["sliding_window_pattern"] = _gemma_pattern(draft)
    rope = read_rope(source, 1e6, layer_type="full_attention")
    local = read_rope(source, 1e4, theta_key="rope_local_base_freq", layer_type="sliding_attention")
    _check(rope, ("linear",))
    _check(local, ())
    draft.values |= {"rope_theta": rope.theta, "rope_local_base_freq": local.theta}
    if scaling := _scaling(rope, draft):
        draft.values["rope_scaling"] = scaling


def _gemma_pattern(draft: Draft) -> int:
    """Every how many layers one looks at everything: the only schedule that mlx-lm has."""
    num_layers = draft.values["num_hidden_layers"]
    step = draft.source.size("sliding_window_pattern", draft.source.size("_sliding_window_pattern", 6))
    types = draft.source.names("layer_types") or [_layer_type(layer, step) for layer in range(num_layers)]
    for pattern in range(1, num_layers + 1):
        if types == [_layer_type(layer, pattern) for layer in range(num_layers)]:
            return pattern
    raise ConversionError(
        f"config.json has layer_types = {short(types)}: mlx-lm's gemma3 lets every n-th layer look at everything, and "
        "has no other schedule"
    )


def _layer_type(layer: int, pattern: int) -> str:
    return "sliding_attention" if (layer + 1) % pattern else "full_attention"


def _need_silu(draft: Draft) -> None:
    draft.source.only("hidden_act", "silu", "swish", why=f"{draft.source.target} computes SiLU only")


def _need_plain_heads(draft: Draft) -> None:
    values = draft.values
    plain = values["hidden_size"] // values["num_attention_heads"]
    draft.source.only("head_dim", plain, why=f"{draft.source.target} takes hidden_size / num_attention_heads = {plain}")


def _need_full_attention(draft: Draft) -> None:
    """mlx-lm's models of these families look at the whole context, whatever a config says of windows."""
    source = draft.source
    window = source.get("sliding_window")
    if window is None and not source.is_null("sliding_window"):
        window = draft.family.defaults.get("sliding_window")
    is_switched_on = source.flag("use_sliding_window", "use_sliding_window" not in draft.family.defaults)
    source.ignore("max_window_layers")
    types = source.names("layer_types")
    has_window = types is None or "sliding_attention" in types
    if is_switched_on and window is not None and window < draft.context and has_window:
        raise ConversionError(
            f"config.json has sliding_window = {short(window)}, below the context of {draft.context}: mlx-lm looks at "
            "the whole context here; set sliding_window to null for a model to be used up to that length"
        )
    if types is not None:
        draft.values["layer_types"] = ["full_attention"] * draft.values["num_hidden_layers"]
    draft.values["sliding_window"] = None


def _set_rope(draft: Draft, types: tuple[str, ...]) -> None:
    rope = read_rope(draft.source, draft.family.defaults.get("rope_theta", 10000.0))
    _check(rope, types)
    if rope.partial != 1:
        raise ConversionError(
            f"config.json has partial_rotary_factor = {rope.partial:g}: {draft.source.target} rotates whole heads"
        )
    draft.values["rope_theta"] = rope.theta
    if scaling := _scaling(rope, draft):
        draft.values["rope_scaling"] = scaling


def _check(rope: Rope, types: tuple[str, ...]) -> None:
    if rope.type not in ("default", *types):
        raise ConversionError(
            f"config.json has rope_type = {short(rope.type)}: {rope.target} does only {', '.join(('default', *types))}"
        )
    check_rope(rope, types)


def _scaling(rope: Rope, draft: Draft) -> dict[str, Any] | None:
    """What mlx-lm reads as ``rope_scaling``; None for a plain embedding. ConversionError for what it cannot do."""
    if rope.type == "dynamic":
        draft.notes.append(f"dynamic rope scaling begins beyond {draft.context} tokens and is left out: keep below")
    if rope.type != "default":
        rope.number("factor")
    if rope.parameters.get("truncate", True) is not True:
        raise ConversionError(f"config.json has rope_parameters.truncate = false: {rope.target} always truncates")
    given = {**rope.parameters, "rope_type": rope.type}
    given.pop("truncate", None)
    keys = mlx_keys({"rope_scaling": given, "max_position_embeddings": draft.context}, has_output=draft.has_output)
    return keys["rope_scaling"]


FAMILIES = (
    Family(("LlamaForCausalLM", "LLaMAForCausalLM"), ("llama",), "llama", _llama, {"rms_norm_eps": 1e-6}),
    Family(
        ("MistralForCausalLM",),
        ("mistral",),
        "llama",
        _llama,
        {"rms_norm_eps": 1e-6, "max_position_embeddings": 131072, "sliding_window": 4096},
    ),
    Family(
        ("SmolLM3ForCausalLM",),
        ("smollm3",),
        "smollm3",
        _smollm3,
        {"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "rope_theta": 2e6, "use_sliding_window": False},
    ),
    Family(
        ("Qwen2ForCausalLM",),
        ("qwen2",),
        "qwen2",
        _qwen2,
        {"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "use_sliding_window": False, "sliding_window": 4096},
    ),
    Family(
        ("Qwen3ForCausalLM",),
        ("qwen3",),
        "qwen3",
        _qwen3,
        {
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 32768,
            "head_dim": 128,
            "use_sliding_window": False,
            "sliding_window": 4096,
        },
    ),
    Family(
        ("StableLmForCausalLM", "StableLMEpochForCausalLM"),
        ("stablelm", "stablelm_epoch"),
        "stablelm",
        _stablelm,
        {"max_position_embeddings": 4096},
    ),
    Family(("ArceeForCausalLM",), ("arcee",), None, _arcee, {"rms_norm_eps": 1e-5, "max_position_embeddings": 4096}),
    Family(
        ("Gemma3ForCausalLM",),
        ("gemma3_text",),
        "gemma3_text",
        _gemma3,
        {
            "max_position_embeddings": 131072,
            "head_dim": 256,
            "rms_norm_eps": 1e-6,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
        },
    ),
)
