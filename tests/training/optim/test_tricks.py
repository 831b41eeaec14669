"""NEFTune, freezing and masters."""

import math
from typing import Literal

import pytest
import torch
from torch import nn

from tapster.runtime.errors import ConfigError
from tapster.training.optim.freezing import choose_trained
from tapster.training.optim.masters import keep_in, lost_share, masters_dtype
from tapster.training.optim.neftune import EmbeddingNoise
from tapster.training.recipe.schema import Neftune, Student


def noise_of(variant: Literal["paper", "supertrainer"], lengths: torch.Tensor) -> torch.Tensor:
    embedding = nn.Embedding(16, 64)
    nn.init.zeros_(embedding.weight)
    noise = EmbeddingNoise(Neftune(alpha=10.0, variant=variant), sequence_length=256)
    noise.attach(embedding)
    noise.lengths = lengths
    torch.manual_seed(0)
    return embedding(torch.zeros(2, 100, dtype=torch.long)).detach()


def test_the_papers_noise_is_centred_and_scaled_by_each_length() -> None:
    noise = noise_of("paper", torch.tensor([[25], [100]]))
    for row, length in enumerate((25, 100)):
        bound = 10 / math.sqrt(length * 64)
        assert noise[row].abs().max() <= bound
        assert noise[row].std() == pytest.approx(bound / math.sqrt(3), rel=0.03)
        assert abs(float(noise[row].mean())) < bound * 0.03


def test_packed_documents_have_their_own_lengths() -> None:
    lengths = torch.cat([torch.full((1, 10), 10), torch.full((1, 90), 90)], dim=1).expand(2, 100)
    noise = noise_of("paper", lengths)
    assert noise[:, :10].std() / noise[:, 10:].std() == pytest.approx(3.0, rel=0.05)


def test_supertrainers_noise_is_positive_and_scaled_by_the_longest_length() -> None:
    noise = noise_of("supertrainer", torch.tensor([[25], [100]]))
    bound = 10 / math.sqrt(256 * 64)
    assert 0 <= noise.min() <= noise.max() <= bound
    assert noise.mean() == pytest.approx(bound / 2, rel=0.03)


def test_there_is_no_noise_in_evaluation() -> None:
    embedding = nn.Embedding(16, 4)
    handle = EmbeddingNoise(Neftune(), 16).attach(embedding)
    ids = torch.arange(16)[None]
    embedding.eval()
    assert torch.equal(embedding(ids)[0], embedding.weight)
    embedding.train()
    handle.remove()
    assert torch.equal(embedding(ids)[0], embedding.weight)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(8, 4)
        self.mlp = nn.Linear(4, 4)
        self.lm_head = nn.Linear(4, 8, bias=False)
        self.lm_head.weight = self.embed_tokens.weight


def trained_of(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_a_frozen_pattern_freezes_a_tied_weight_by_either_name() -> None:
    for pattern in ("embed_tokens", r"lm_head\.weight"):
        model = Tied()
        assert choose_trained(model, [pattern], []) == (20, 52)
        assert trained_of(model) == {"mlp.weight", "mlp.bias"}


def test_only_what_is_named_is_trained() -> None:
    model = Tied()
    choose_trained(model, [r"bias$"], ["mlp"])
    assert trained_of(model) == {"mlp.weight"}


def test_never_thaws_what_was_frozen_before() -> None:
    model = Tied()
    model.mlp.weight.requires_grad_(False)
    choose_trained(model, [], ["mlp"])
    assert trained_of(model) == {"mlp.bias"}


@pytest.mark.parametrize(
    ("frozen", "trained", "what"),
    [
        (["emed_tokens"], [], "frozen: no parameter's name has 'emed_tokens' in it; names are like"),
        ([], ["attention"], "trained: no parameter's name has 'attention' in it"),
        (["("], [], r"frozen: '\(' is no regular expression"),
        (["."], [], "every parameter is frozen"),
    ],
)
def test_a_choice_that_makes_no_sense_is_one_clear_line(frozen: list[str], trained: list[str], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        choose_trained(Tied(), frozen, trained)
    assert "\n" not in str(caught.value)


def weights_of(value: float, dtype: torch.dtype = torch.float32) -> nn.Linear:
    layer = nn.Linear(64, 64, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer.to(dtype)


@pytest.mark.parametrize("value", [0.002, 0.0049, 0.0055, 0.008, 0.02, 1.0])
@pytest.mark.parametrize("lr", [2e-5, 1e-4])
def test_lost_share_is_what_bfloat16_does(value: float, lr: float) -> None:
    weights = torch.full((64,), value).bfloat16()
    is_lost = bool((weights - lr).bfloat16().eq(weights).all())
    assert lost_share(weights_of(float(weights[0])), lr, "bfloat16") == float(is_lost)


@pytest.mark.parametrize("lr", [2e-5, 1e-2])
def test_masters_are_float32_unless_asked_otherwise(lr: float) -> None:
    """Whatever the rate: it decays, and moments are kept in the same type."""
    student = Student(model="x", dtype="bfloat16", compute="bfloat16")
    assert masters_dtype(weights_of(0.02), student, lr) == ("float32", None)


def test_masters_that_lose_updates_are_warned_of() -> None:
    student = Student(model="x", dtype="bfloat16", compute="bfloat16", masters="as-saved")
    dtype, warning = masters_dtype(weights_of(0.02), student, lr=2e-5)
    assert dtype == "bfloat16"
    assert warning is not None
    assert warning.startswith("100% of the weights are so large that a step of 2e-05 is rounded away in bfloat16")
    assert masters_dtype(weights_of(0.02), student, lr=1e-2) == ("bfloat16", None)


def test_a_few_weights_that_cannot_move_are_warned_of() -> None:
    student = Student(model="x", dtype="bfloat16", compute="bfloat16", masters="as-saved")
    model = nn.Sequential(weights_of(0.001), nn.LayerNorm(8, bias=False))  # 4,096 weights, and 8 that are one
    dtype, warning = masters_dtype(model, student, lr=1e-3)
    assert dtype == "bfloat16"
    assert warning is not None
    assert warning.startswith("0.195% of the weights are so large that a step of 0.001 is rounded away")


def test_second_moments_in_bfloat16_never_shrink() -> None:
    held = {}
    for dtype in (torch.bfloat16, torch.float32):
        parameter = nn.Parameter(torch.ones(8, dtype=dtype))
        optimizer = torch.optim.AdamW([parameter], lr=1e-3)
        for step in range(100):
            parameter.grad = torch.full_like(parameter, float(step == 0))
            optimizer.step()
        held[dtype] = float(optimizer.state[parameter]["exp_avg_sq"][0])
    assert held[torch.float32] == pytest.approx(1e-3 * 0.999**99, rel=1e-3)
    assert held[torch.bfloat16] == pytest.approx(1e-3, rel=1e-2)


def test_frozen_weights_stay_small_where_autocast_mixes() -> None:
    model = Tied().bfloat16()
    choose_trained(model, ["mlp"], [])
    keep_in(model, "float32", "bfloat16")
    assert model.mlp.weight.dtype == torch.bfloat16
    assert model.lm_head.weight.dtype == torch.float32
    assert model.lm_head.weight is model.embed_tokens.weight
    keep_in(model, "float32", "float32")
    assert model.mlp.weight.dtype == torch.float32


def test_updates_that_bfloat16_would_lose_add_up_in_masters() -> None:
    lost, kept = weights_of(0.02, torch.bfloat16), weights_of(0.02, torch.bfloat16)
    keep_in(kept, "float32", "bfloat16")
    for layer in (lost, kept):
        before = layer.weight.detach().float().clone()
        optimizer = torch.optim.AdamW(layer.parameters(), lr=2e-5, weight_decay=0.0)
        for _ in range(50):
            layer.weight.grad = torch.ones_like(layer.weight)
            optimizer.step()
        moved = float((layer.weight.detach().float() - before).abs().mean())
        assert moved == pytest.approx(0.0 if layer is lost else 50 * 2e-5, abs=1e-6)
