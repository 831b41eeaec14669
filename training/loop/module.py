"""The student and its loss as one module, so that DDP and FSDP see one forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...runtime.errors import ModelError
from ..objectives.batch import Forward, GlobalBatch, Rows, Spans, TargetSource
from ..objectives.select import predictions_of
from ..optim.neftune import EmbeddingNoise
from ..teacher.head import check_halves, scale_and_cap
from .collate import columns_of, lengths, position_ids

if TYPE_CHECKING:
    from ..objectives.assembly import Assembly, Loss


class StudentModule(nn.Module):
    """``forward`` turns a collated batch into its part of the loss of the global batch.

    Only predictions reach the output matrix: the hidden states of positions without a label go no further.
    """

    accepts_loss_kwargs = True
    """Tells the Trainer that the loss is normalised over all micro-batches already."""

    def __init__(self, model: Any, assembly: Assembly, noise: EmbeddingNoise | None = None) -> None:
        super().__init__()
        self.model = model
        self.assembly = assembly
        self._noise = noise
        self._scale = logit_scale(model.config)
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        # In a tuple, so that they do not count as further children.
        self._parts = (causal.get_decoder(), causal.get_output_embeddings(), causal.get_input_embeddings())

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def _no_split_modules(self) -> Any:
        """What FSDP wraps one by one."""
        return getattr(self.model, "_no_split_modules", None)

    def forward(
        self,
        batch: Mapping[str, Tensor],
        step: int,
        global_batch: GlobalBatch,
        targets: TargetSource | None = None,
        teacher_states: tuple[Tensor, ...] | None = None,
        spans: Spans | None = None,
    ) -> tuple[Tensor, dict[str, float], dict[str, float]]:
        """The loss, and the value and the weight of each term."""
        forward = self.look(batch, step, targets, teacher_states, spans)
        loss: Loss = self.assembly.loss(forward, global_batch)
        return loss.total, loss.terms, loss.weights

    def look(
        self,
        batch: Mapping[str, Tensor],
        step: int,
        targets: TargetSource | None = None,
        teacher_states: tuple[Tensor, ...] | None = None,
        spans: Spans | None = None,
    ) -> Forward:
        """A forward pass up to the last hidden states."""
        decoder, head, embedding = self._parts
        if self._noise is not None:
            self._noise.lengths = lengths(batch)
        needs_states = self.assembly.needs_states and teacher_states is not None
        output = decoder(**model_inputs(batch), use_cache=False, output_hidden_states=needs_states)
        row, position = predictions_of(batch)
        return Forward(
            hidden=output.last_hidden_state[row, position] * self._scale,
            head=head.weight,
            bias=head.bias,
            labels=batch["labels"][row, position + 1],
            row=row,
            position=position,
            rows=Rows(len(batch["input_ids"]), columns_of(batch)),
            step=step,
            targets=targets,
            embedding=embedding.weight,
            states=output.hidden_states if needs_states else None,
            teacher_states=teacher_states,
            mask=batch["attention_mask"].bool(),
            spans=spans,
            is_training=self.training,
        )


def model_inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a causal model needs of a batch. Padding stands at the right, where no token that counts can see it, so
    there is no mask, and attention may take its fastest path. Positions tell packed documents apart."""
    if "segments" not in batch:
        return {"input_ids": batch["input_ids"]}
    return {"input_ids": batch["input_ids"], "position_ids": position_ids(batch["segments"])}


def check_student(model: Any) -> None:
    """Raises ModelError where a model's logits are not what ``StudentModule`` takes them for."""
    decoder, head, scale = model.get_decoder(), model.get_output_embeddings(), logit_scale(model.config)

    def logits(batch: Mapping[str, Tensor]) -> Tensor:
        hidden = decoder(**model_inputs(batch), use_cache=False).last_hidden_state
        return nn.functional.linear(hidden * scale, head.weight, head.bias)

    check_halves(model, logits, len(head.weight), "training would follow a wrong loss; take another student")


def logit_scale(config: Any) -> float:
    """What a family multiplies its logits with. Raises ModelError where it bends them, which losses here do not."""
    scale, cap = scale_and_cap(config)
    if cap is not None:
        raise ModelError(f"a {config.model_type} model caps its logits, which training cannot do; take another student")
    return scale


def device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
