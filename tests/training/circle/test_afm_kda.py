"""SmolLM2 with Kimi Delta Attention in place of its own comes nearer to what it was, and runs elsewhere the same."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from black_box import Api, Prompt
from circle_runs import convert_all, records, train_small
from llama_logits import llama_logits
from served import serving

from tapster.server.commands.checkpoints import checkpoint_folder

ALIGN, DISTIL = "01-align", "02-distil"
FEW = {
    **{"stages.align.steps": 10, "stages.distil.steps": 4},
    **{
        f"stages.{stage}.{key}": value
        for stage in ("align", "distil")
        for key, value in (
            *(("batch_size", 2), ("micro_batch_size", 2), ("sequence_length", 64), ("data.eval_rows", 3)),
            *(("eval_steps", ""), ("save_steps", "")),
        )
    },
}
"""What two cores do in a minute; the recipe's small form takes several."""
TEXT = "The ferry left the harbour in the morning, and nobody on board knew that it would be a long day at sea. " * 4


@pytest.fixture(scope="module")
def run(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    options = [part for key, value in FEW.items() for part in ("--set", f"{key}={value}")]
    folder = train_small("afm-kda", tmp_path_factory.mktemp("afm-kda") / "run", *options)
    yield folder
    shutil.rmtree(folder)  # gigabytes


@pytest.fixture(scope="module")
def gguf(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    out = tmp_path_factory.mktemp("artifacts")
    made = convert_all(run / "model", out, "gguf:F32", "gguf:F16")
    yield {kind: Path(artifact["path"]) for kind, artifact in made.items()}
    shutil.rmtree(out)


@pytest.fixture(scope="module")
def tokens(run: Path) -> list[int]:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(run / "model")(TEXT)["input_ids"][:96]


@pytest.fixture(scope="module")
def logits(run: Path, tokens: list[int]) -> torch.Tensor:
    """By plain transformers, in float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(run / "model", dtype=torch.float32)
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


def weight(folder: Path, name: str) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        return file.get_tensor(name).float()


def divergence(reference: torch.Tensor, other: torch.Tensor) -> float:
    """In nats, the mean over positions."""
    expected, found = reference.log_softmax(-1), other.log_softmax(-1)
    return (expected.exp() * (expected - found)).sum(-1).mean().item()


def test_its_divergence_from_its_teacher_falls(run: Path) -> None:
    start, aligned = (records(run, "align", "eval")[at]["terms/forward_kl"] for at in (0, -1))
    before, after = (records(run, "distil", "eval")[at]["terms/forward_kl"] for at in (0, -1))
    assert aligned < 0.75 * start
    assert after < before


def test_only_the_attention_is_aligned_and_then_all_is_distilled(run: Path) -> None:
    teacher = checkpoint_folder("demo", quiet=True)
    aligned, distilled = (run / "stages" / stage / "model" for stage in (ALIGN, DISTIL))
    for name in ("model.embed_tokens.weight", "model.norm.weight", "model.layers.29.mlp.up_proj.weight"):
        before, saved = weight(teacher, name), name.replace("mlp", "block_sparse_moe")  # as transformers saves it
        assert torch.equal(weight(aligned, saved), before), name
        assert not torch.equal(weight(distilled, saved), before), name
    projection = "model.layers.29.self_attn.o_proj.weight"
    assert not torch.equal(weight(aligned, projection), weight(teacher, projection))


def test_llama_cpp_computes_what_pytorch_computes(
    gguf: dict[str, Path], tokens: list[int], logits: torch.Tensor
) -> None:
    found = torch.from_numpy(llama_logits(gguf["gguf:F32"], tokens))
    torch.testing.assert_close(found, logits, rtol=0, atol=0.05)
    assert divergence(logits, found) < 1e-6


def test_half_precision_costs_what_it_costs_in_pytorch(
    run: Path, gguf: dict[str, Path], tokens: list[int], logits: torch.Tensor
) -> None:
    """llama.cpp rounds what goes into a product with float16 weights to float16. No weight suffers by it: the same
    rounding in PyTorch costs as much."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(run / "model", dtype=torch.float32)
    for part in model.modules():
        if isinstance(part, torch.nn.Linear):
            part.register_forward_pre_hook(lambda _, inputs: (inputs[0].half().float(),))
    with torch.no_grad():
        rounded = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    cost = divergence(logits, torch.from_numpy(llama_logits(gguf["gguf:F16"], tokens)))
    assert cost < 5 * divergence(logits, rounded)
    assert cost < 1e-2


def test_it_is_served(gguf: dict[str, Path]) -> None:
    with serving(str(gguf["gguf:F16"])) as url, Api(url) as api:
        whole, streamed = (ask(Prompt("What is water made of?"), max_tokens=8) for ask in (api.whole, api.streamed))
    assert whole.num_tokens > 0
    assert whole.text == streamed.text
    assert "<|im_end|>" not in whole.text


def test_the_card_says_what_it_is(run: Path) -> None:
    import yaml

    text = (run / "model" / "README.md").read_text("utf-8")
    values: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    assert values["license"] == "apache-2.0"
    assert values["library_name"] == "transformers"
    assert str(run) not in text
