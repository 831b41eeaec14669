"""Llama and those that compute like it: Mistral, and SmolLM3 with its layers without positions."""

from ....runtime.errors import ConversionError
from .base import GATED, NORMS, Builder, Row, attention, attention_biases

_ROPE = ("linear", "dynamic", "yarn", "llama3")
_MLP_BIASES = (
    Row("ffn_gate.bias", "mlp.gate_proj.bias", ("ff",)),
    Row("ffn_up.bias", "mlp.up_proj.bias", ("ff",)),
    Row("ffn_down.bias", "mlp.down_proj.bias", ("hidden",)),
)
_OUTPUT_BIAS = Row("attn_output.bias", "self_attn.o_proj.bias", ("hidden",))
_NOPE_STEP = 4
"""llama.cpp's smollm3 leaves every fourth layer without positions, whatever a file says."""


def plan_llama(build: Builder) -> None:
    build.read_sizes(max_position_embeddings=2048)
    _add_decoder(build, rope_theta=10000.0, tied_default=False, rope_types=_ROPE)
    build.set_head_size()
    if build.config.flag("attention_bias", False):
        build.add_rows((*attention_biases(rotated=True), _OUTPUT_BIAS))
    if build.config.flag("mlp_bias", False):
        build.add_rows(_MLP_BIASES)


def plan_mistral(build: Builder) -> None:
    build.read_sizes(max_position_embeddings=131072)
    _add_decoder(build, rope_theta=10000.0, tied_default=False, rope_types=_ROPE, absent_window=4096)
    build.set_head_size()


def plan_smollm3(build: Builder) -> None:
    build.read_sizes(max_position_embeddings=32768)
    _check_schedule(build)
    for key in ("attention_bias", "mlp_bias"):
        build.config.only(key, False, why="llama.cpp's smollm3 has no biases")
    if "head_dim" in build.config:
        build.set_head_size()
    types = ("linear", "dynamic", "yarn")
    _add_decoder(build, rope_theta=2_000_000.0, tied_default=True, rope_types=types, window_default=False)


def _add_decoder(
    build: Builder,
    *,
    rope_theta: float,
    tied_default: bool,
    rope_types: tuple[str, ...],
    window_default: bool = True,
    absent_window: int | None = None,
) -> None:
    config = build.config
    build.need_silu()
    build.need_full_attention(window_default=window_default, absent_window=absent_window)
    build.set("attention.layer_norm_rms_epsilon", config.number("rms_norm_eps", 1e-6))
    build.set("vocab_size", build.sizes["vocab"])
    build.set("rope.dimension_count", build.sizes["head"])
    build.add_embedding(tied_default=tied_default)
    build.add_norm("output_norm.weight", "model.norm.weight")
    build.read_rope(rope_types, rope_theta)
    build.add_rows((*NORMS, *attention(rotated=True), *GATED))


def _check_schedule(build: Builder) -> None:
    """``no_rope_layers`` has a 1 for each layer with positions. GGUF has no key for it."""
    fixed = [int((layer + 1) % _NOPE_STEP != 0) for layer in range(build.sizes["layers"])]
    interval = build.config.size("no_rope_layer_interval", _NOPE_STEP)
    stepped = [int((layer + 1) % interval != 0) for layer in range(build.sizes["layers"])]
    schedule = build.config.get("no_rope_layers", stepped)
    if not isinstance(schedule, list) or schedule[: len(fixed)] != fixed:
        raise ConversionError(
            f"config.json has no_rope_layers = {schedule}: llama.cpp's smollm3 leaves every {_NOPE_STEP}th layer "
            f"without positions and no others, and GGUF has no key to say otherwise"
        )
