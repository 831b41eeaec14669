import torch
from torch import nn

from tapster.training.optim.adalite import Adalite
from tapster.training.optim.make import decay_groups, make_optimizer
from tapster.training.recipe.schema import Optimizer


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(8, 4)
        self.q_proj = nn.Linear(4, 4)
        self.input_layernorm = nn.LayerNorm(4)
        self.A_log = nn.Parameter(torch.zeros(1, 1, 2, 1))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def names_of(model: nn.Module, group: dict) -> set[str]:
    return {name for name, value in model.named_parameters() if any(value is member for member in group["params"])}


def test_decays_only_what_decay_helps() -> None:
    model = Model()
    decayed, others = decay_groups(model, 0.1)
    assert names_of(model, decayed) == {"embed_tokens.weight", "q_proj.weight"}
    assert names_of(model, others) == {"q_proj.bias", "input_layernorm.weight", "input_layernorm.bias", "A_log"}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


def test_an_anchored_embedding_is_not_decayed() -> None:
    model = Model()
    decayed, _ = decay_groups(model, 0.1, {"embed_tokens.weight"})
    assert names_of(model, decayed) == {"q_proj.weight"}


def test_adamw_gets_what_the_recipe_says() -> None:
    options = Optimizer(name="adamw", lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)
    optimizer = make_optimizer(Model(), options)
    assert isinstance(optimizer, torch.optim.AdamW)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (3e-4, (0.9, 0.95), 1e-8, 0.1)


def test_adalite_gets_what_the_recipe_says() -> None:
    optimizer = make_optimizer(Model(), Optimizer(name="adalite", lr=1e-5, norm_loss=0.02, safe=False))
    assert isinstance(optimizer, Adalite)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["eps"], group["norm_loss"], group["safe"]) == (1e-5, 1e-5, 0.02, False)
