"""What mlx-lm has to be told of a checkpoint of transformers beside its own config.json.

Of ``rope_parameters``, in which transformers 5 keeps the rotary embedding, most of mlx-lm's models read nothing and
take their default base instead; and where a config leaves ``tie_word_embeddings`` out, the two defaults differ.
"""

import math
from collections.abc import Mapping
from typing import Any

_FULL, _SLIDING = "full_attention", "sliding_attention"
_OURS = ("rope_theta", "partial_rotary_factor")


def mlx_keys(config: Mapping[str, Any], *, has_output: bool) -> dict[str, Any]:
    """Keys that replace those of ``config``. ``has_output`` is whether the weights have an ``lm_head``."""
    keys: dict[str, Any] = {"tie_word_embeddings": config.get("tie_word_embeddings", not has_output)}
    given = config.get("rope_parameters") or {}
    if isinstance(given.get(_FULL), dict):
        local = given.get(_SLIDING) or {}
        keys |= {"rope_local_base_freq": local["rope_theta"]} if "rope_theta" in local else {}
        given = given[_FULL]
    older = config.get("rope_scaling")
    scaling = {name: value for name, value in {**given, **(older or {})}.items() if value is not None}
    keys |= {name: scaling[name] for name in _OURS if name in scaling}
    if scaling or older is not None:
        keys["rope_scaling"] = _scaling(scaling, config)
    if types := config.get("layer_types"):
        keys |= _every_nth(types)
    return keys


def _scaling(given: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """None for a plain embedding. Dynamic scaling does nothing within the trained context, beyond which we never go."""
    kind = given.get("rope_type", given.get("type", "default"))
    if kind in ("default", "dynamic"):
        return None
    scaling = {name: value for name, value in given.items() if name not in (*_OURS, "type")} | {"rope_type": kind}
    if kind == "yarn":
        scaling.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
        factor, stretch = scaling.pop("attention_factor", None), scaling.get("factor", 1)
        if factor is not None and stretch > 1:  # mlx-lm's own is 0.1 mscale ln(stretch) + 1
            scaling |= {"mscale": (factor - 1) / (0.1 * math.log(stretch)), "mscale_all_dim": 0}
        elif not (scaling.get("mscale") and scaling.get("mscale_all_dim")):
            scaling = {name: value for name, value in scaling.items() if not name.startswith("mscale")}
    return scaling


def _every_nth(types: list[str]) -> dict[str, int]:
    """Every how many layers one looks at everything, which is how mlx-lm's gemma3 has it."""
    if _FULL not in types or _SLIDING not in types:
        return {}
    step = types.index(_FULL) + 1
    is_regular = all((kind == _FULL) == ((layer + 1) % step == 0) for layer, kind in enumerate(types))
    return {"sliding_window_pattern": step} if is_regular else {}
