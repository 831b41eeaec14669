"""What a student takes from its teacher, what is new in it, and which teachers are refused."""

import copy
import math

import pytest
import torch
from kda_models import lively_student, logits_of, tiny_teacher
from transformers.models.kimi_linear.modeling_kimi_linear import KimiLinearDeltaAttention

from tapster.runtime.errors import ConfigError, ModelError
from tapster.training.kda.attention import ChunkedDeltaAttention, causal_convolution
from tapster.training.kda.surgery import identity_convolution, replace_attention
from tapster.training.recipe.schema import Kda


@pytest.mark.parametrize(
    ("family", "values"),
    [("Llama", {}), ("Arcee", {}), ("Mistral", {"sliding_window": None}), ("SmolLM3", {"pad_token_id": 0})],
)
def test_everything_but_the_attention_stays(family: str, values: dict[str, object]) -> None:
    teacher = tiny_teacher(family, **values)
    before = copy.deepcopy(teacher.state_dict())
    student = replace_attention(teacher, Kda()).state_dict()
    for name, weight in before.items():
        if not name.endswith(("k_proj.weight", "v_proj.weight")):
            assert torch.equal(student[name], weight), name


def test_heads_of_keys_and_values_are_repeated_for_their_queries() -> None:
    teacher = tiny_teacher()
    student = replace_attention(teacher, Kda()).model.layers[1].self_attn
    for name in ("k_proj", "v_proj"):
        few = getattr(teacher.model.layers[1].self_attn, name).weight.view(2, 16, 64)
        many = getattr(student, name).weight.view(4, 16, 64)
        assert [torch.equal(many[head], few[head // 2]) for head in range(4)] == [True] * 4


def test_gates_begin_as_published() -> None:
    student = replace_attention(tiny_teacher(hidden_size=256), Kda(), seed=3).requires_grad_(False)
    layer = student.model.layers[0].self_attn
    decay = layer.forget_gate.A_log.exp()
    assert 1 <= decay.min() < decay.max() <= 16
    step = torch.nn.functional.softplus(layer.forget_gate.dt_bias.double())
    assert 1e-3 * 0.999 <= step.min() < step.max() <= 0.1 * 1.001
    assert step.log().mean().item() == pytest.approx((math.log(1e-3) + math.log(0.1)) / 2, abs=0.3)
    assert layer.o_norm.weight.eq(1).all()
    for matrix in (layer.b_proj, layer.g_a_proj, layer.g_b_proj, layer.forget_gate.f_a_proj):
        assert matrix.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_a_convolution_begins_as_the_identity() -> None:
    x = torch.randn(2, 9, 5)
    assert torch.equal(causal_convolution(x, identity_convolution(5, 4)), x)
    layer = replace_attention(tiny_teacher(), Kda(conv_kernel=3)).model.layers[0].self_attn
    assert torch.equal(layer.conv1d.weight.detach(), identity_convolution(3 * 64, 3))


def test_a_seed_gives_the_same_student() -> None:
    one, two, other = (replace_attention(tiny_teacher(), Kda(), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    name = "model.layers.1.self_attn.b_proj.weight"
    assert not torch.equal(one[name], other[name])


def test_tied_embeddings_come_apart() -> None:
    student = replace_attention(tiny_teacher(tie_word_embeddings=True), Kda())
    assert torch.equal(student.lm_head.weight, student.model.embed_tokens.weight)
    assert student.lm_head.weight.data_ptr() != student.model.embed_tokens.weight.data_ptr()
    assert not student.config.tie_word_embeddings


def test_heads_may_be_cut_in_other_sizes() -> None:
    student = replace_attention(tiny_teacher(), Kda(head_dim=32))
    assert (student.config.linear_num_heads, student.config.linear_head_dim) == (2, 32)
    assert logits_of(student, torch.arange(5)[None]).isfinite().all()


@pytest.mark.parametrize("family", ["Llama", "Arcee"])
def test_the_layer_is_transformers_own(family: str) -> None:
    """Logits and all gradients, with padding."""
    student = lively_student(family).train()
    tokens = torch.randint(0, 300, (2, 70))
    mask = torch.ones_like(tokens)
    mask[1, 50:] = 0
    results = []
    for kind in (ChunkedDeltaAttention, KimiLinearDeltaAttention):
        for layer in student.model.layers:
            layer.self_attn.__class__ = kind
        student.zero_grad()
        logits = student(input_ids=tokens, attention_mask=mask, use_cache=False).logits[mask.bool()]
        logits.square().mean().backward()
        results.append((logits.detach(), {name: p.grad.clone() for name, p in student.named_parameters()}))
    (ours, our_gradients), (theirs, their_gradients) = results
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for name, gradient in their_gradients.items():
        assert (our_gradients[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


def test_hidden_states_line_up_with_the_teachers() -> None:
    teacher = tiny_teacher()
    student = replace_attention(copy.deepcopy(teacher), Kda())
    tokens = torch.arange(9)[None]
    states = [model.get_decoder()(tokens, output_hidden_states=True) for model in (teacher, student)]
    assert len(states[0].hidden_states) == len(states[1].hidden_states) == 3
    assert torch.equal(states[0].hidden_states[0], states[1].hidden_states[0])
    assert all(torch.equal(output.hidden_states[-1], output.last_hidden_state) for output in states)


@pytest.mark.parametrize(
    ("family", "values", "message"),
    [
        ("Qwen2", {}, "the teacher (qwen2) has model.layers.0.self_attn.k_proj.bias, for which a KDA student has no"),
        ("Qwen3", {"head_dim": 16}, "the teacher (qwen3) has model.layers.0.self_attn.k_norm.weight"),
        ("Llama", {"hidden_act": "gelu"}, "the teacher's feed-forward network has the activation 'gelu'"),
        ("Granite", {"logits_scaling": 8.0}, "the teacher (granite) is of none of the families"),
        ("Mistral", {"sliding_window": 16}, "the teacher (mistral) has a sliding window"),
        ("StableLm", {}, "the teacher (stablelm) has model.layers.0.input_layernorm.bias"),
        ("GPTNeoX", {}, "the teacher's feed-forward network has the activation 'gelu'"),
    ],
)
def test_other_teachers_are_refused(family: str, values: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        replace_attention(tiny_teacher(family, **values), Kda())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="head_dim = 24 does not divide the 64 columns"):
        replace_attention(tiny_teacher(), Kda(head_dim=24))
    with pytest.raises(ConfigError, match=r"layers = \[1\] leaves attention layers of 2"):
        replace_attention(tiny_teacher(), Kda(layers=[1]))
    replace_attention(tiny_teacher(), Kda(layers=[1, 0]))
