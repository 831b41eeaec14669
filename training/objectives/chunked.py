"""Sums over predictions without their logits: these exist for one chunk at a time.

For a sum L = sum_j c_j sum_n v_j(z_n), z = hidden head^T + bias, whose coefficients are known beforehand, dL/dz of a
chunk is known as soon as its logits are. So the gradients of hidden and head are added up in the forward pass, with the
same three matrix products that the dense form has, and the backward pass only hands them on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .graph import is_graph_kept

ChunkValues = Callable[[Tensor, slice], Sequence[Tensor]]
"""From the float32 logits (n, V) of the predictions in a slice: J tensors (n,)."""

CHUNK_BYTES = {"cpu": 32 << 20, "other": 512 << 20}
"""How much the logits of a chunk take, in float32; what is computed from them takes a few times as much."""


def chunk_size_for(num_tokens: int, device: torch.device) -> int:
    """Predictions of a chunk for a vocabulary of ``num_tokens``."""
    return max(16, CHUNK_BYTES.get(device.type, CHUNK_BYTES["other"]) // (4 * num_tokens))


def weighted_sums(
    hidden: Tensor,
    head: Tensor,
    bias: Tensor | None,
    values: ChunkValues,
    coefficients: Sequence[float],
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The scalar L with gradients to ``hidden`` (N, D), ``head`` (V, D) and ``bias`` (V,), and the J sums without.

    Nothing goes backward through values whose coefficient is 0: they are only summed.
    Under autocast the matrix products run in its precision, else in that of ``hidden``; logits are float32.
    """
    size = chunk_size or chunk_size_for(len(head), hidden.device)
    dtype = _compute_dtype(hidden)
    return _WeightedSums.apply(hidden, head, bias, values, tuple(coefficients), size, dtype, torch.is_grad_enabled())


def label_log_probs(
    hidden: Tensor, head: Tensor, bias: Tensor | None, labels: Tensor, chunk_size: int | None = None
) -> Tensor:
    """(N,) float32 log-probabilities of ``labels`` (N,), without gradients."""
    size = chunk_size or chunk_size_for(len(head), hidden.device)
    dtype = _compute_dtype(hidden)  # as it is outside the block below
    result = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        weight = head.detach().to(dtype)
        for part, _, logits in _chunks(hidden.to(weight.dtype), weight, bias, size):
            own = logits.gather(1, labels[part, None])[:, 0]
            result[part] = own - logits.logsumexp(-1)
    return result


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _chunks(hidden: Tensor, weight: Tensor, bias: Tensor | None, size: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Each chunk: which predictions, their hidden states, their logits in float32 (float64 stays), until the next one.

    The products go into the same memory each time: new memory of this size is new to the system too, page by page.
    """
    buffer = hidden.new_empty((min(size, len(hidden)), len(weight)))
    for start in range(0, len(hidden), size):
        part = slice(start, min(start + size, len(hidden)))
        logits = torch.mm(hidden[part], weight.T, out=buffer[: part.stop - start].detach())
        if logits.dtype != torch.float64:
            logits = logits.float()
        if bias is not None:
            logits += bias.to(logits.dtype)
        yield part, hidden[part], logits


class _WeightedSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        bias: Tensor | None,
        values: ChunkValues,
        coefficients: tuple[float, ...],
        size: int,
        dtype: torch.dtype,
        wants_gradients: bool,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(hidden.device.type, enabled=False):
            gradients = _Gradients(
                hidden, head, bias, dtype, ctx.needs_input_grad[:3] if wants_gradients else (False,) * 3
            )
            sums = torch.zeros(len(coefficients), dtype=torch.promote_types(dtype, torch.float32), device=hidden.device)
            for part, states, logits in _chunks(hidden.to(dtype), gradients.weight, bias, size):
                logits.requires_grad_(gradients.are_wanted)
                with torch.set_grad_enabled(gradients.are_wanted):
                    by_term = [value.sum() for value in values(logits, part)]
                    shares = zip(by_term, gradients.relative(coefficients), strict=True)
                    total = sum((value * share for value, share in shares if share), logits.new_zeros(()))
                sums += torch.stack(by_term).detach()
                if gradients.are_wanted and total.requires_grad:
                    gradients.add(part, states, torch.autograd.grad(total, logits)[0])
                del logits, by_term, total
            gradients.finish(coefficients)
            total = (sums * sums.new_tensor(coefficients)).sum()
        ctx.dtypes = [None if leaf is None else leaf.dtype for leaf in (hidden, head, bias)]
        ctx.gradients = [gradients.hidden, gradients.head, gradients.bias]
        ctx.mark_non_differentiable(sums)
        return total, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]: once_differentiable drops names
        gradients: list[Tensor | None] | None = ctx.gradients
        if gradients is None:
            raise RuntimeError("trying to go backward through a chunked loss a second time: retain_graph=True keeps it")
        is_kept = is_graph_kept()
        if not is_kept:
            ctx.gradients = None  # held by nobody else, they become the leaves' gradients as they are, without a copy
        upstream = grad_outputs[0]
        if is_kept or upstream.item() != 1.0:  # mostly it is
            scale = torch.mul if is_kept else Tensor.mul_  # what is kept stays as it is, whatever becomes of the copy
            gradients = [None if gradient is None else scale(gradient, upstream) for gradient in gradients]
        given = [None if gradient is None else gradient.to(ctx.dtypes[idx]) for idx, gradient in enumerate(gradients)]
        return *given, None, None, None, None, None


class _Gradients:
    """The gradients of hidden, head and bias, as chunks add to them; None where nobody wants one.

    Coefficients are about one over the number of predictions, too little for float16; so chunks are computed with
    coefficients relative to the largest, which is multiplied in at the end, in float32,
    in which they stay until the backward pass has brought the scale of a gradient scaler.
    """

    def __init__(
        self, hidden: Tensor, head: Tensor, bias: Tensor | None, dtype: torch.dtype, wanted: Sequence[bool]
    ) -> None:
        self.are_wanted = any(wanted)
        self.weight = head.detach().to(dtype)
        sums = torch.promote_types(dtype, torch.float32)
        self.hidden = torch.zeros(hidden.shape, dtype=sums, device=hidden.device) if wanted[0] else None
        self.head = torch.zeros(head.shape, dtype=sums, device=head.device) if wanted[1] else None
        self.bias = torch.zeros(bias.shape, dtype=sums, device=bias.device) if wanted[2] and bias is not None else None

    def relative(self, coefficients: Sequence[float]) -> list[float]:
        return [coefficient / _largest(coefficients) for coefficient in coefficients]

    def add(self, part: slice, states: Tensor, gradient: Tensor) -> None:
        """``gradient`` (n, V) of a chunk's logits."""
        if self.bias is not None:
            self.bias += gradient.sum(0)
        gradient = gradient.to(self.weight.dtype)
        if self.hidden is not None:
            self.hidden[part] = gradient @ self.weight
        if self.head is not None and self.head.dtype == gradient.dtype:
            self.head.addmm_(gradient.T, states)
        elif self.head is not None:
            self.head += gradient.T @ states

    def finish(self, coefficients: Sequence[float]) -> None:
        scale = _largest(coefficients)
        for gradient in (self.hidden, self.head, self.bias):
            if gradient is not None:
                gradient.mul_(scale)


def _largest(coefficients: Sequence[float]) -> float:
    return max(map(abs, coefficients), default=0.0) or 1.0
