"""What all architectures share: a table of a layer's tensors, and the builder that fills a plan from it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ....runtime.errors import ConversionError
from ...checkpoint.tied import check_tied
from ..plan import Compute, TensorPlan, Value
from .config import Config
from .rope import Rope, check_rope, frequency_factors, read_rope, rope_metadata
from .tensors import TensorSource


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor of a layer: its name in GGUF and in the checkpoint, and its shape in the names of sizes.

    ``heads`` names the number of heads whose rows change places for llama.cpp's way to rotate pairs.
    """

    name: str
    source: str
    shape: tuple[str, ...]
    heads: str | None = None
    compute: Compute | None = None


def attention(*, rotated: bool) -> tuple[Row, ...]:
    """Query, key, value, output. ``rotated``: the architecture rotates neighbours, transformers rotates halves."""
    q_heads, k_heads = ("heads", "kv_heads") if rotated else (None, None)
    return (
        Row("attn_q.weight", "self_attn.q_proj.weight", ("q", "hidden"), q_heads),
        Row("attn_k.weight", "self_attn.k_proj.weight", ("kv", "hidden"), k_heads),
        Row("attn_v.weight", "self_attn.v_proj.weight", ("kv", "hidden")),
        Row("attn_output.weight", "self_attn.o_proj.weight", ("hidden", "q")),
    )


def attention_biases(*, rotated: bool) -> tuple[Row, ...]:
    """The biases of query, key and value; that of the output is a row of its own."""
    q_heads, k_heads = ("heads", "kv_heads") if rotated else (None, None)
    return (
        Row("attn_q.bias", "self_attn.q_proj.bias", ("q",), q_heads),
        Row("attn_k.bias", "self_attn.k_proj.bias", ("kv",), k_heads),
        Row("attn_v.bias", "self_attn.v_proj.bias", ("kv",)),
    )


NORMS = (
    Row("attn_norm.weight", "input_layernorm.weight", ("hidden",)),
    Row("ffn_norm.weight", "post_attention_layernorm.weight", ("hidden",)),
)
UP_DOWN = (
    Row("ffn_up.weight", "mlp.up_proj.weight", ("ff", "hidden")),
    Row("ffn_down.weight", "mlp.down_proj.weight", ("hidden", "ff")),
)
GATED = (Row("ffn_gate.weight", "mlp.gate_proj.weight", ("ff", "hidden")), *UP_DOWN)


def permute(num_heads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Rows of each head from "first half, second half" to "pairs": (heads, 2, half, …) -> (heads, half, 2, …)."""

    def arranged(array: np.ndarray) -> np.ndarray:
        halves = array.reshape(num_heads, 2, array.shape[0] // num_heads // 2, *array.shape[1:])
        return halves.swapaxes(1, 2).reshape(array.shape)

    return arranged


def rows_to(shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """The same elements in another shape."""
    return lambda array: array.reshape(shape)


_SIZES = {
    "hidden": "hidden_size",
    "ff": "intermediate_size",
    "heads": "num_attention_heads",
    "context": "max_position_embeddings",
    "vocab": "vocab_size",
}


@dataclass
class Builder:
    """A plan being made: the config and the tensors go in, keys and plans come out.

    ``sizes`` are the names that rows use for their dimensions.
    """

    architecture: str
    config: Config
    tensors: TensorSource
    metadata: dict[str, Value] = field(default_factory=dict)
    plans: list[TensorPlan] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a tensor that is left over is refused, by part of its name."""

    def set(self, key: str, value: Value) -> None:
        self.metadata[f"{self.architecture}.{key}"] = value

    def read_sizes(self, **defaults: int) -> None:
        """The sizes that every decoder has, and their keys. ``defaults`` are transformers' by the config's keys."""
        config, sizes = self.config, self.sizes
        sizes["layers"] = self.read_layers()
        for name, key in _SIZES.items():
            sizes[name] = config.size(key, defaults.get(key))
        sizes["kv_heads"] = config.size("num_key_value_heads", defaults.get("num_key_value_heads", sizes["heads"]))
        sizes["head"] = config.size("head_dim", defaults.get("head_dim", max(1, sizes["hidden"] // sizes["heads"])))
        self._finish_sizes()
        self.set("block_count", sizes["layers"])
        self.set("context_length", sizes["context"])
        self.set("embedding_length", sizes["hidden"])
        self.set("feed_forward_length", sizes["ff"])
        self.set("attention.head_count", sizes["heads"])
        self.set("attention.head_count_kv", sizes["kv_heads"])

    def read_layers(self) -> int:
        """The number of layers, which cannot be more than there are tensors."""
        layers = self.config.size("num_hidden_layers")
        if layers > len(self.tensors):
            raise ConversionError(
                f"config.json has num_hidden_layers = {layers}, and the checkpoint has {len(self.tensors)} tensors"
            )
        return layers

    def _finish_sizes(self) -> None:
        sizes = self.sizes
        if sizes["heads"] % sizes["kv_heads"]:
            raise ConversionError(
                f"config.json has num_attention_heads = {sizes['heads']}, no multiple of num_key_value_heads = "
                f"{sizes['kv_heads']}"
            )
        sizes["q"], sizes["kv"] = sizes["heads"] * sizes["head"], sizes["kv_heads"] * sizes["head"]

    def need_plain_heads(self) -> None:
        """For architectures of which llama.cpp takes the heads to share the hidden size among them."""
        if self.sizes["q"] != self.sizes["hidden"]:
            raise ConversionError(
                f"config.json has head_dim = {self.sizes['head']}, and llama.cpp's {self.architecture} takes "
                f"hidden_size / num_attention_heads = {self.sizes['hidden'] / self.sizes['heads']:g}"
            )

    def set_head_size(self) -> None:
        self.set("attention.key_length", self.sizes["head"])
        self.set("attention.value_length", self.sizes["head"])

    def read_rope(self, types: Iterable[str], theta: float = 10000.0) -> Rope:
        """The keys of a rotary embedding that turns whole heads, and the tensor of Llama 3's scaling."""
        rope = read_rope(self.config, theta)
        check_rope(rope, types)
        if rope.partial != 1:
            raise ConversionError(
                f"config.json has partial_rotary_factor = {rope.partial:g}: llama.cpp's {self.architecture} rotates "
                f"whole heads"
            )
        self.set_rope(rope)
        if rope.type == "llama3":
            head = self.sizes["head"]  # as yet only a number: no tensor has been compared with it
            frequency_factors(rope, 2)
            shape = ((head + 1) // 2,)
            factors = partial(frequency_factors, rope, head)
            self.plans.append(TensorPlan("rope_freqs.weight", shape, constant=factors, keep="F32"))
        return rope

    def set_rope(self, rope: Rope) -> None:
        for key, value in rope_metadata(rope, self.sizes["context"]).items():
            self.set(f"rope.{key}", value)
        if rope.type == "dynamic":
            self.notes.append(
                f"dynamic rope scaling begins beyond {self.sizes['context']} tokens, which GGUF cannot say: keep below"
            )

    def need_silu(self, key: str = "hidden_act") -> None:
        self.config.only(key, "silu", "swish", why=f"llama.cpp's {self.architecture} computes SiLU only")

    def need_full_attention(
        self, *, window_default: bool = True, first_key: str | None = None, absent_window: int | None = None
    ) -> None:
        """Refuse sliding windows, unless they are as long as the context or look at no layer.

        ``window_default`` is what an absent ``use_sliding_window`` means, ``absent_window`` what an absent
        ``sliding_window`` does (null is none), ``first_key`` the key of the first layer that looks through the window.
        """
        config = self.config
        window = absent_window if not config.is_null("sliding_window") else None
        window = config.size("sliding_window") if "sliding_window" in config else window
        is_switched_on = config.flag("use_sliding_window", window_default)
        is_on = is_switched_on and window is not None and window < self.sizes["context"]
        config.ignore("max_window_layers")
        types = config.names("layer_types")
        if types is not None:
            self._check_layer_types(types, is_on)
        elif is_on and (first_key is None or config.number(first_key, 0) < self.sizes["layers"]):
            raise ConversionError(
                f"config.json has {self._window_words(window)}, below the context of {self.sizes['context']}: GGUF has "
                f"no key for it in {self.architecture}; set it to null, and keep prompts below {window} tokens"
            )

    def _window_words(self, window: int | None) -> str:
        is_there = "sliding_window" in self.config
        return f"sliding_window = {window}" if is_there else f"no sliding_window, which means {window}"

    def _check_layer_types(self, types: list[str], is_window_on: bool) -> None:
        allowed = {"full_attention"} if is_window_on else {"full_attention", "sliding_attention"}
        if len(types) != self.sizes["layers"]:
            raise ConversionError(
                f"config.json has {len(types)} layer_types for num_hidden_layers = {self.sizes['layers']}"
            )
        if other := next((name for name in types if name not in allowed), None):
            raise ConversionError(
                f"config.json has {other!r} among its layer_types: GGUF has no key for it in {self.architecture}"
            )

    def add_embedding(self, *, tied_default: bool, needs_output: bool = False, body: str = "model.") -> None:
        """Token embedding and output. Tied ones share a tensor where llama.cpp allows it."""
        shape = (self.sizes["vocab"], self.sizes["hidden"])
        embedding = self.tensors.take(f"{body}embed_tokens.weight", shape)
        self.plans.append(TensorPlan("token_embd.weight", shape, (embedding,)))
        if not self.config.flag("tie_word_embeddings", tied_default):
            self.plans.append(TensorPlan("output.weight", shape, (self.tensors.take("lm_head.weight", shape),)))
            return
        if "lm_head.weight" in self.tensors:
            check_tied(self.tensors.take("lm_head.weight", shape).bits(), embedding.bits())
        if needs_output:
            self.plans.append(TensorPlan("output.weight", shape, (embedding,)))
            self.notes.append(f"the tied embedding is written twice: llama.cpp's {self.architecture} wants an output")

    def add_rows(self, rows: Iterable[Row], prefix: str = "model.layers.") -> None:
        """The rows of every layer."""
        rows = tuple(rows)
        for layer in range(self.sizes["layers"]):
            for row in rows:
                self.add_row(row, layer, prefix)

    def add_row(self, row: Row, layer: int, prefix: str = "model.layers.") -> None:
        shape = tuple(self.sizes[name] for name in row.shape)
        source = self.tensors.take(f"{prefix}{layer}.{row.source}", shape)
        arrange = permute(self.sizes[row.heads]) if row.heads else None
        name = f"blk.{layer}.{row.name}"
        self.plans.append(TensorPlan(name, shape, (source,), arrange, row.compute, keep=kept_type(name, shape)))

    def add_norm(self, name: str, source: str, compute: Compute | None = None) -> None:
        shape = (self.sizes["hidden"],)
        self.plans.append(TensorPlan(name, shape, (self.tensors.take(source, shape),), compute=compute, keep="F32"))


def kept_type(name: str, shape: tuple[int, ...]) -> str | None:
    """F32 for what llama.cpp reads in float32 only: vectors, norms, and whatever is no ``.weight``."""
    is_small = len(shape) <= 1 or name.endswith("_norm.weight") or not name.endswith(".weight")
    return "F32" if is_small else None
