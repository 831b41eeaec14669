"""What a student of Kimi Delta Attention (KDA) looks like as a config of transformers' ``kimi_linear``.

The class has KDA layers and layers of latent attention without rotation; a student has the former only. The sizes of
latent attention are those of the layer that ``portable`` appends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...runtime.errors import ConfigError, ModelError
from ..recipe.schema import Kda

if TYPE_CHECKING:
    from transformers import KimiLinearConfig

_LATENT: dict[str, Any] = {"kv_lora_rank": 32, "qk_rope_head_dim": 32, "qk_nope_head_dim": 32, "v_head_dim": 32}
"""Small, and whole blocks of the quantized types that count by 32."""
_COPIED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "max_position_embeddings"),
    *("rms_norm_eps", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id"),
)
_ACTIVATIONS = {"silu": True, "swish": True, "relu2": False}
"""Of the feed-forward network, and whether it has a gate."""


def is_gated(teacher: Any) -> bool:
    """Whether a teacher's feed-forward networks have a gate. ModelError for one that a student cannot have."""
    if (name := getattr(teacher, "hidden_act", None)) not in _ACTIVATIONS:
        raise ModelError(
            f"the teacher's feed-forward network has the activation {name!r}: KDA students have silu or relu2"
        )
    return _ACTIVATIONS[name]


def kda_config(teacher: Any, kda: Kda) -> KimiLinearConfig:
    """The student's config for a teacher's. ConfigError for sizes that the teacher's projections do not fit."""
    from transformers import KimiLinearConfig

    check_layers(kda, teacher.num_hidden_layers)
    heads, head_dim = _heads(teacher, kda)
    values: dict[str, Any] = {name: getattr(teacher, name) for name in _COPIED if hasattr(teacher, name)}
    return KimiLinearConfig(
        **values,
        **_LATENT,
        layer_types=["linear_attention"] * teacher.num_hidden_layers,
        mlp_layer_types=["dense"] * teacher.num_hidden_layers,
        linear_num_heads=heads,
        linear_head_dim=head_dim,
        linear_conv_kernel_dim=kda.conv_kernel,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        hidden_act="silu",  # of the convolutions, too
        tie_word_embeddings=False,  # the class cannot tie
    )


def teacher_head_dim(teacher: Any) -> int:
    return getattr(teacher, "head_dim", None) or teacher.hidden_size // teacher.num_attention_heads


def _heads(teacher: Any, kda: Kda) -> tuple[int, int]:
    """Number and size of the student's heads: together as wide as the teacher's."""
    head_dim = kda.head_dim or teacher_head_dim(teacher)
    inner = teacher.num_attention_heads * teacher_head_dim(teacher)
    if inner % head_dim:
        raise ConfigError(
            f"student.kda.head_dim = {head_dim} does not divide the {inner} columns of the teacher's attention: use "
            f"{teacher_head_dim(teacher)}, as the teacher does, or another divisor"
        )
    return inner // head_dim, head_dim


def check_layers(kda: Kda, num_layers: int) -> None:
    """ConfigError where layers of the teacher would be left as they are, or are not there."""
    if kda.layers == "all" or sorted(set(kda.layers)) == list(range(num_layers)):
        return
    raise ConfigError(
        f"student.kda.layers = {kda.layers} leaves attention layers of {num_layers} as they are, and transformers' "
        f'kimi_linear has no attention with rotated keys: use "all"'
    )
