"""Adalite: Adafactor's normalisation with one second moment a row, a trust ratio, and the pull of the Norm Loss.

As published in January 2024 (euclaise/supertrainer2000, the version that Memphis was trained with). For a parameter p
of shape (r, …) with gradient g, at its t-th step:

    g <- g - mean(g over all dimensions but the first)
    b  = 1 - t^-0.8
    u  = (1 - b) g² + b c + eps          c: one number a row, the mean of the last u over the row
    m  = g / sqrt(u), then m / max(1, RMS(m))
    m <- m ‖p‖ / ‖g‖ + norm_loss (p - p / ‖p‖)
    p <- p - lr m

A vector counts as one row. The second part of m is the gradient of the Norm Loss (arXiv 2103.06583): it pulls each
tensor's norm to one, where weight decay would pull it to zero.

The step does not shrink with the gradient, as m is divided by ‖g‖. While gradients stay below sqrt(eps), which in
language models they nearly everywhere do, u is what eps adds up to, about eps t^0.8, and step t moves each tensor by
about lr / sqrt(eps) t^-0.4 of its norm: 316 lr at first. So a rate that suits hundreds of steps is far too large for a
dozen. ``safe`` bounds ‖g‖ and the trust ratio from below, as its author did later: a gradient that vanishes moves
nothing.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

SMALLEST = 1e-3
"""Of a gradient's norm and of a trust ratio, where ``safe``."""


class Adalite(Optimizer):
    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        eps: float = 1e-5,
        norm_loss: float = 0.01,
        beta_decay: float = 0.8,
        safe: bool = True,
    ) -> None:
        super().__init__(params, {"lr": lr, "eps": eps, "norm_loss": norm_loss, "beta_decay": beta_decay, "safe": safe})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As it was kept: PyTorch casts the state of a parameter to the parameter's type, and ``rows`` are float32."""
        super().load_state_dict(state_dict)
        ids = [idx for group in state_dict["param_groups"] for idx in group["params"]]
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for idx, parameter in zip(ids, parameters, strict=True):
            if kept := state_dict["state"].get(idx):
                self.state[parameter]["rows"] = kept["rows"].to(parameter.device, torch.float32)

    def _update(self, parameter: Tensor, raw: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["rows"] = torch.zeros(_row_shape(parameter), dtype=torch.float32, device=parameter.device)
        state["step"] += 1
        weights = parameter.float()
        gradient = centred(raw.float())
        moved, state["rows"] = normalised(gradient, state["rows"], state["step"], group["beta_decay"], group["eps"])
        moved = _trusted(moved, gradient, weights, group["norm_loss"], group["safe"])
        parameter.copy_(weights - group["lr"] * moved)


def centred(gradient: Tensor) -> Tensor:
    """Each row's mean taken off; of a vector, the whole mean."""
    if gradient.numel() == 1:
        return gradient
    return gradient - gradient.mean(dim=_inner(gradient), keepdim=True)


def normalised(gradient: Tensor, rows: Tensor, step: int, beta_decay: float, eps: float) -> tuple[Tensor, Tensor]:
    """The gradient over the root of its second moment, of an RMS of at most one; and the second moments of the rows."""
    beta = 1.0 - step**-beta_decay
    second = (1.0 - beta) * gradient.square() + beta * rows + eps
    moved = gradient * second.rsqrt()
    rms = moved.square().mean().sqrt()
    return moved / rms.clamp(min=1.0), second.mean(dim=_inner(gradient), keepdim=True)


def _trusted(moved: Tensor, gradient: Tensor, weights: Tensor, norm_loss: float, safe: bool) -> Tensor:
    norm, gradient_norm = weights.norm(), gradient.norm()
    if norm == 0 or gradient_norm == 0:
        return moved
    ratio = norm / gradient_norm.clamp(min=SMALLEST) if safe else norm / gradient_norm
    if safe:
        ratio = ratio.clamp(min=SMALLEST)
    return moved * ratio + norm_loss * (weights - weights / norm)


def _inner(tensor: Tensor) -> tuple[int, ...]:
    """The dimensions that one second moment is of: all but the first, and of a vector that one."""
    return tuple(range(1, tensor.dim())) or tuple(range(tensor.dim()))


def _row_shape(tensor: Tensor) -> tuple[int, ...]:
    inner = _inner(tensor)
    return tuple(1 if dim in inner else size for dim, size in enumerate(tensor.shape))
