"""What a proof says of ends that nobody declared, and of shapes that llama.cpp writes otherwise."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from gguf_copy import copy_gguf
from tiny_checkpoints import TinyCheckpoint, plan_folder

from tapster.converters.checkpoint.checkpoint import open_checkpoint
from tapster.converters.gguf.quantize import Quantizer
from tapster.converters.gguf.reader import GGUFTensors
from tapster.converters.proof.proof import prove
from tapster.converters.proof.source import ProofSource, checkpoint_source, gguf_source
from tapster.converters.proof.tensors import check_tensors

EOS = "tokenizer.ggml.eos_token_id"
Tiny = Callable[[str], TinyCheckpoint]


@pytest.mark.parametrize("recipe", ["kda-wide"])
def test_a_quantized_kimi_linear_is_its_source(
    recipe: str, tiny_checkpoint: Tiny, tiny_gguf: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """llama.cpp writes the convolutions' shape without the dimension of 1 in front."""
    quantized = tmp_path / "kda-Q4_K_M.gguf"
    with Quantizer() as quantizer:
        quantizer.quantize(tiny_gguf(recipe, "BF16"), quantized, "Q4_K_M")
    plan = plan_folder(tiny_checkpoint(recipe).folder)
    source, artifact = {tensor.name: tensor for tensor in plan.tensors}, GGUFTensors(quantized)
    name = "blk.0.ssm_conv1d_q.weight"
    assert source[name].shape == (1, 256, 1, 4)
    assert artifact[name].shape == (256, 1, 4)
    report = check_tensors(source, artifact)
    assert report.problems == []
    assert len(report.errors) == len(source)
    assert {"Q4_K", "Q6_K"} <= {error.type for error in report.errors}


def test_an_end_that_nobody_declared_fails(tiny_model: Path, tmp_path: Path) -> None:
    """Without an eos llama.cpp ends answers at token 11 of such a vocabulary."""
    source = gguf_source(tiny_model)
    artifact = copy_gguf(tiny_model, tmp_path / "tiny.gguf", fields={EOS: None})
    failures = prove(source, artifact, no_divergence="not part of this test").failures
    assert [failure for failure in failures if failure.startswith("the token 11 (") and "does not say so" in failure]
    declared = ProofSource(**{**vars(source), "eog_ids": (*source.eog_ids, 11)})
    failures = prove(declared, artifact, no_divergence="not part of this test").failures
    assert not [failure for failure in failures if "does not say so" in failure]


def test_the_tokenizers_own_end_is_declared(tiny_checkpoint: Tiny) -> None:
    folder = tiny_checkpoint("llama").folder
    checkpoint = open_checkpoint(folder)
    bare = replace(checkpoint, generation_config={"eos_token_id": 1})
    assert checkpoint_source(bare, plan_folder(folder)).eog_ids == (1, 2)
