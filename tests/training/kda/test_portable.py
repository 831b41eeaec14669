"""A student that was saved: in plain transformers, opened again, in llama.cpp, and served."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convert_command import convert
from kda_models import lively_student, logits_of
from llama_logits import llama_logits
from tiny_tokenizer import save_tokenizer
from transformers import AutoModelForCausalLM

from tapster.runtime.runtime import Runtime
from tapster.training.kda.portable import from_portable, to_portable

FAMILIES = ["Llama", "Arcee"]
TOKENS = torch.from_numpy(np.random.default_rng(0).integers(3, 290, (1, 100)))
RELU_SQUARED = {"Llama": 1e-5, "Arcee": 1e-3}
"""How far the logits of the portable form may be off: ReLU² by a gate is exact to 1e-4."""

Saved = Callable[[str], tuple[Path, torch.Tensor]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The folder of a family's student in bfloat16, with a tokenizer; and the logits that it had before."""
    made: dict[str, tuple[Path, torch.Tensor]] = {}

    def make(family: str) -> tuple[Path, torch.Tensor]:
        if family not in made:
            folder = tmp_path_factory.mktemp("kda") / f"tiny-{family.lower()}"
            folder.mkdir()
            student = lively_student(family, vocab_size=320)
            save_tokenizer(folder)
            made[family] = folder, logits_of(student, TOKENS)
            to_portable(student).bfloat16().save_pretrained(folder)
        return made[family]

    return make


def open_plain(folder: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_transformers_computes_the_same(saved: Saved, family: str) -> None:
    folder, logits = saved(family)
    model, info = open_plain(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(logits_of(model, TOKENS), logits, rtol=0, atol=RELU_SQUARED[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_generating_with_a_cache_is_generating_without(saved: Saved, family: str) -> None:
    model = open_plain(saved(family)[0])
    options = {"attention_mask": torch.ones(1, 20), "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    texts = [model.generate(TOKENS[:, :20], use_cache=use, **options).tolist() for use in (True, False)]
    assert texts[0] == texts[1]
    assert len(texts[0][0]) > 20


@pytest.mark.parametrize("family", FAMILIES)
def test_opened_again_it_is_the_student_that_was_trained(saved: Saved, family: str) -> None:
    folder, logits = saved(family)
    before = lively_student(family, vocab_size=320)
    again = from_portable(open_plain(folder))
    assert type(again) is type(before)
    assert again.config.layer_types == ["linear_attention"] * 2
    assert not again.config.use_cache
    assert again.state_dict().keys() == before.state_dict().keys()
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in before.state_dict().items())
    assert torch.equal(logits_of(again, TOKENS), logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_computes_the_same(saved: Saved, family: str, tmp_path: Path) -> None:
    folder, logits = saved(family)
    assert convert(folder, "--to", "gguf:F32", "--out", tmp_path / "out", "--no-verify", "--quiet") == 0
    found = torch.from_numpy(llama_logits(next((tmp_path / "out").glob("*.gguf")), TOKENS[0].tolist()))
    torch.testing.assert_close(found, logits[0], rtol=0, atol=10 * RELU_SQUARED[family])


@pytest.mark.parametrize("family", FAMILIES)
async def test_it_is_served(saved: Saved, family: str) -> None:
    runtime = Runtime.open(saved(family)[0])
    try:
        params = runtime.default_params(max_tokens=8, temperature=0.0)
        (stream,) = runtime.chat([{"role": "user", "content": "the quick brown fox"}], params)
        answer = await stream.collect()
        assert answer.usage.completion_tokens == 8
    finally:
        runtime.close()


def test_a_layer_that_has_learnt_something_stays(saved: Saved, tmp_path: Path) -> None:
    model = open_plain(saved("Llama")[0])
    with torch.no_grad():
        model.model.layers[-1].mlp.down_proj.weight[0, 0] = 1.0
    model.save_pretrained(tmp_path / "more")
    assert from_portable(open_plain(tmp_path / "more")).config.num_hidden_layers == 3
