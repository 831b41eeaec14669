"""A causal language model in two halves: hidden states, and logits of those that are wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...runtime.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    Batch = Mapping[str, Tensor]

LOGITS_AT_ONCE = 1 << 24
"""Of one chunk: 64 MB."""
_TOLERANCE = 1e-2


class SplitModel:
    """``model`` without its last product, with logits of the first ``vocab_size`` tokens (None: all). ModelError when
    its logits are not what the halves make of it."""

    def __init__(self, model: Any, vocab_size: int | None = None) -> None:
        self.model = model
        self.base = getattr(model, model.base_model_prefix)
        self.head = model.get_output_embeddings()
        if self.head is None:
            raise ModelError(f"{type(model).__name__} has no output matrix: a teacher is a causal language model")
        self._factor, self._softcap = scale_and_cap(model.config)
        self.vocab_size = vocab_size or self.head.weight.shape[0]
        self._check()

    def forward(self, batch: Batch, *, with_states: bool = False) -> tuple[Tensor, Any]:
        """Last hidden states (B, T, D), and if asked for those after the embedding and after each layer."""
        out = self.base(**model_inputs(batch), use_cache=False, output_hidden_states=with_states, return_dict=True)
        return out.last_hidden_state, out.hidden_states if with_states else None

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, D) to (n, V) float32."""
        logits = self.head(hidden.to(self.head.weight.dtype))[..., : self.vocab_size].float()
        if self._factor != 1.0:
            logits = logits * self._factor
        return logits if self._softcap is None else self._softcap * (logits / self._softcap).tanh()

    def label_log_probs(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """(n,) float32 from (n, D) and the tokens that follow, (n,); some logits at a time."""
        import torch

        size = max(1, LOGITS_AT_ONCE // self.vocab_size)
        with torch.no_grad():
            parts = [
                -torch.nn.functional.cross_entropy(self.logits(states), wanted, reduction="none")
                for states, wanted in zip(hidden.split(size), labels.split(size), strict=True)
            ]
        return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)

    def _check(self) -> None:
        check_halves(
            self.model,
            lambda batch: self.logits(self.forward(batch)[0]),
            self.vocab_size,
            "it cannot be a teacher in memory; serve it, and use a text cache",
        )


def scale_and_cap(config: Any) -> tuple[float, float | None]:
    """What a family multiplies its logits with, and what it then bends them to stay below."""
    config = config.get_text_config()
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    return scale, getattr(config, "final_logit_softcapping", None) or None


def check_halves(model: Any, logits: Callable[[Batch], Tensor], num_tokens: int, otherwise: str) -> None:
    """Raises ModelError, ending in ``otherwise``, where ``logits``, made of a batch in two halves, are not those of the
    whole ``model`` for the first ``num_tokens`` tokens."""
    import torch

    ids = torch.arange(min(8, num_tokens), device=model.get_output_embeddings().weight.device)[None]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits[..., :num_tokens].float()
        halves = logits({"input_ids": ids, "attention_mask": torch.ones_like(ids)}).float()
    model.train(was_training)
    name = type(model).__name__
    if whole.isnan().any():
        raise ModelError(f"the logits of {name} are NaN: is its checkpoint whole?")
    if not torch.allclose(whole, halves, rtol=_TOLERANCE, atol=_TOLERANCE * whole.abs().max().item()):
        raise ModelError(f"the logits of {name} are more than a product of its hidden states: {otherwise}")


def model_inputs(batch: Batch) -> dict[str, Tensor]:
    """What transformers gets of a batch. Documents that share a row are told apart by positions that restart."""
    if "segments" not in batch:
        return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    from ..loop.collate import position_ids

    return {"input_ids": batch["input_ids"], "position_ids": position_ids(batch["segments"])}
