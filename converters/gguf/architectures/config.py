"""config.json, key by key. What nobody asked for may change what the model computes, so it is refused.

Three kinds of keys pass: those that an architecture reads, those that are known to be harmless when a trained model
runs, and switches that stand at their neutral value.
"""

from collections.abc import Mapping
from typing import Any

from ....runtime.errors import ConversionError

_NAMES = """architectures model_type auto_map transformers_version torch_dtype dtype tokenizer_class
    transformers.js_config unsloth_version unsloth_fixed is_llama_config name_or_path _name_or_path _commit_hash
    _attn_implementation _attn_implementation_autoset attn_implementation use_cache cache_implementation
    use_flash_attention_2 use_flash_attn flash_attention use_bfloat16 torchscript max_sequence_length"""
_TRAINING = """initializer_range initializer_factor attention_dropout hidden_dropout hidden_dropout_prob embd_pdrop
    resid_pdrop attn_pdrop dropout layerdrop gradient_checkpointing pretraining_tp"""
_GENERATION = """bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id decoder_start_token_id bos_token
    eos_token pad_token max_length min_length max_new_tokens do_sample early_stopping num_beams num_beam_groups
    diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens prefix"""
"""generation_config.json and the tokenizer say these better."""
_OUTPUTS = """output_attentions output_hidden_states output_scores return_dict return_dict_in_generate use_return_dict
    id2label label2id num_labels problem_type finetuning_task task_specific_params classifier_dropout
    chunk_size_feed_forward tf_legacy_loss"""
"""What a forward pass hands out, and heads that a language model does not have."""
_HARMLESS = frozenset(" ".join((_NAMES, _TRAINING, _GENERATION, _OUTPUTS)).split())

_LARGEST = 3e38

_NEUTRAL: dict[str, Any] = {
    "add_cross_attention": False,
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "attn_logit_softcap": None,
    "clip_qkv": None,
    "cross_attention_hidden_size": None,
    "embedding_multiplier": 1,
    "final_logit_softcapping": None,
    "is_decoder": (False, True),
    "is_encoder_decoder": False,
    "logit_scale": 1,
    "logits_scaling": 1,
    "mlp_bias": False,
    "num_nextn_predict_layers": 0,
    "pruned_heads": {},
    "qk_layernorm": False,
    "residual_multiplier": 1,
    "rope_interleaved": False,
    "tie_encoder_decoder": False,
    "use_bidirectional_attention": False,
    "use_mrope": False,
    "use_qk_norm": False,
}
"""Switches that change the computation when they stand otherwise, and the value at which they do nothing."""


class Config:
    """The keys of one config.json. ``target`` is the architecture that error messages speak of.

    A key with the value null counts as absent, as in transformers, but for the few of which null means something.
    """

    cannot = "GGUF has no key for it in"
    """How a refusal ends, before the target."""

    def __init__(self, values: Mapping[str, Any], target: str) -> None:
        self._values = {key: value for key, value in values.items() if value is not None}
        self._nulls = values.keys() - self._values.keys()
        self._taken: set[str] = set()
        self.target = target

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def is_null(self, key: str) -> bool:
        """Whether the key is there and says nothing."""
        return key in self._nulls

    def get(self, key: str, default: Any = None) -> Any:
        self._taken.add(key)
        return self._values.get(key, default)

    def size(self, key: str, default: int | None = None) -> int:
        """A count of something, at least 1 and no more than 32 bits. Without a default the key has to be there."""
        value = self.get(key, default)
        if value is None:
            raise ConversionError(f"config.json has no {key}, which {self.target} needs: add it")
        if type(value) is not int or not 1 <= value < 1 << 32:
            raise ConversionError(f"config.json has {key} = {short(value)}, not a positive whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        return as_number(key, self.get(key, default), self.target)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if type(value) is not bool:
            raise ConversionError(f"config.json has {key} = {short(value)}, not true or false")
        return value

    def names(self, key: str) -> list[str] | None:
        """A list of texts, one for each layer; None when it is absent."""
        value = self.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
            raise ConversionError(f"config.json has {key} = {short(value)}, not a list of names")
        return value

    def table(self, key: str) -> dict[str, Any]:
        """A dictionary; an empty one when it is absent."""
        value = self.get(key, {})
        if not isinstance(value, dict):
            raise ConversionError(f"config.json has {key} = {short(value)}, not a table of values")
        return value

    def only(self, key: str, *allowed: Any, why: str) -> None:
        """Refuse every value but these. An absent key is fine."""
        value = self.get(key)
        if value is not None and not _is_one_of(value, allowed):
            raise ConversionError(f"config.json has {key} = {short(value)}: {why}")

    def ignore(self, *keys: str) -> None:
        """Keys that do nothing in this model, whatever they say."""
        self._taken.update(keys)

    def refuse_unknown(self) -> None:
        """ConversionError for the first key that nobody took and that is not known to be harmless."""
        for key, value in self._values.items():
            if key in self._taken or key in _HARMLESS:
                continue
            if key not in _NEUTRAL:
                raise ConversionError(
                    f"config.json has {key} = {short(value)}, which tapster does not know for {self.target}: it may "
                    f"change what the model computes; remove the key if it does not"
                )
            neutral = _NEUTRAL[key]
            if not _is_one_of(value, neutral if isinstance(neutral, tuple) else (neutral,)):
                raise ConversionError(
                    f"config.json has {key} = {short(value)}: it changes what the model computes, and "
                    f"{self.cannot} {self.target}"
                )


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Equal as numbers are, but no bool to a number."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed)


def as_number(key: str, value: Any, target: str) -> float:
    """A number that may be written as an int; bool is none. ConversionError."""
    if value is None:
        raise ConversionError(f"config.json has no {key}, which {target} needs: add it")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= _LARGEST:
        raise ConversionError(f"config.json has {key} = {short(value)}, not a number that float32 can hold")
    return float(value)


def short(value: Any) -> str:
    """A value for an error message, cut when it is long."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
