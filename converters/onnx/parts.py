"""The tensors of a decoder, taken from the checkpoint by transformers' names and checked for their shapes."""

from dataclasses import dataclass

from ..checkpoint.safetensors import CheckpointTensor
from ..checkpoint.tied import check_tied
from ..gguf.architectures.tensors import TensorSource
from .decoder import Layer, Linear, Norm


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers that shapes are made of."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    context: int


@dataclass(frozen=True, slots=True)
class Parts:
    """Takes what a model of these sizes and features has."""

    sizes: Sizes
    tensors: TensorSource
    is_layer_norm: bool
    is_gated: bool
    has_qkv_bias: bool
    has_output_bias: bool
    has_mlp_bias: bool
    has_head_norms: bool
    is_packed: bool
    has_stacked_norms: bool
    is_parallel: bool

    def embedding(self) -> Linear:
        return Linear("model.embed_tokens", (self._take("model.embed_tokens.weight", *self._table_shape),))

    def head_matrix(self, *, is_tied: bool) -> Linear | None:
        """The output matrix; None when it is the embedding. A tied one that is stored as well has to be the same."""
        if not is_tied:
            return Linear("lm_head", (self._take("lm_head.weight", *self._table_shape),))
        if "lm_head.weight" in self.tensors:
            stored = self._take("lm_head.weight", *self._table_shape)
            check_tied(stored.bits(), self._take("model.embed_tokens.weight", *self._table_shape).bits())
        return None

    @property
    def _table_shape(self) -> tuple[int, int]:
        return self.sizes.vocabulary, self.sizes.hidden

    def layer(self, layer: int, has_positions: bool, window: int | None) -> Layer:
        base, sizes = f"model.layers.{layer}", self.sizes
        ff, hidden = sizes.feed_forward, sizes.hidden
        query_norm, key_norm = self._head_norms(f"{base}.self_attn")
        return Layer(
            first_norm=self.norm(f"{base}.input_layernorm", f"{base}.input_layernorm"),
            qkv=self._qkv(f"{base}.self_attn"),
            output=self._linear(
                f"{base}.self_attn.o_proj", (hidden, sizes.heads * sizes.head), has_bias=self.has_output_bias
            ),
            gate=self._linear(f"{base}.mlp.gate_proj", (ff, hidden), has_bias=self.has_mlp_bias)
            if self.is_gated
            else None,
            up=self._linear(f"{base}.mlp.up_proj", (ff, hidden), has_bias=self.has_mlp_bias),
            down=self._linear(f"{base}.mlp.down_proj", (hidden, ff), has_bias=self.has_mlp_bias),
            second_norm=None
            if self.is_parallel
            else self.norm(f"{base}.post_attention_layernorm", f"{base}.post_attention_layernorm"),
            query_norm=query_norm,
            key_norm=key_norm,
            has_positions=has_positions,
            window=window,
        )

    def norm(self, name: str, source: str) -> Norm:
        hidden = self.sizes.hidden
        bias = self._take(f"{source}.bias", hidden) if self.is_layer_norm else None
        return Norm(name, (self._take(f"{source}.weight", hidden),), bias, self.is_layer_norm)

    def _qkv(self, base: str) -> tuple[Linear, ...]:
        """One matrix together; three where something happens to queries and keys on the way."""
        sizes, hidden = self.sizes, self.sizes.hidden
        rows = {"q": sizes.heads, "k": sizes.kv_heads, "v": sizes.kv_heads}
        each = tuple(
            self._linear(f"{base}.{letter}_proj", (heads * sizes.head, hidden), has_bias=self.has_qkv_bias)
            for letter, heads in rows.items()
        )
        if self.has_head_norms or self.has_stacked_norms or not self.is_packed:
            return each
        parts = tuple(part for linear in each for part in linear.parts)
        biases = tuple(bias for linear in each for bias in linear.bias)
        return (Linear(f"{base}.qkv_proj", parts, biases),)

    def _head_norms(self, base: str) -> tuple[Norm | None, Norm | None]:
        """Qwen3 has one vector for all heads, StableLM 12B one for each, without a bias."""
        head = self.sizes.head
        if self.has_head_norms:
            names = (f"{base}.q_norm", f"{base}.k_norm")
            query, key = (Norm(name, (self._take(f"{name}.weight", head),)) for name in names)
            return query, key
        if not self.has_stacked_norms:
            return None, None
        stacked: list[Norm] = []
        for letter, heads in (("q", self.sizes.heads), ("k", self.sizes.kv_heads)):
            name = f"{base}.{letter}_layernorm"
            parts = tuple(self._take(f"{name}.norms.{index}.weight", head) for index in range(heads))
            stacked.append(Norm(name, parts, is_layer_norm=True))
        return stacked[0], stacked[1]

    def _linear(self, name: str, shape: tuple[int, int], *, has_bias: bool) -> Linear:
        bias = (self._take(f"{name}.bias", shape[0]),) if has_bias else ()
        return Linear(name, (self._take(f"{name}.weight", *shape),), bias)

    def _take(self, name: str, *shape: int) -> CheckpointTensor:
        return self.tensors.take(name, shape)
