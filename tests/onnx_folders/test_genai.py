"""onnxruntime-genai loads the folders unchanged and answers as transformers does."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_checkpoints import TinyCheckpoint

NUM_NEW = 24
NUM_PROMPT = 20


def reference_answer(folder: Path, prompt: list[int]) -> list[int]:
    """What transformers generates, in float32."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        ids = model.generate(
            torch.tensor([prompt]), max_new_tokens=NUM_NEW, do_sample=False, attention_mask=torch.ones(1, len(prompt))
        )
    return ids[0, len(prompt) :].tolist()


def genai_answer(folder: Path, prompt: list[int]) -> list[int]:
    """What onnxruntime-genai generates from a folder."""
    genai = pytest.importorskip("onnxruntime_genai")
    model = genai.Model(str(folder))
    params = genai.GeneratorParams(model)
    params.set_search_options(max_length=len(prompt) + NUM_NEW)
    generator = genai.Generator(model, params)
    generator.append_tokens(prompt)
    answer: list[int] = []
    while not generator.is_done():
        generator.generate_next_token()
        answer.append(int(generator.get_next_tokens()[0]))
    return answer


@pytest.mark.parametrize(
    "recipe", ["llama-biases", "mistral-window", "smollm3", "qwen2", "qwen3", "stablelm", "stablelm-12b", "arcee"]
)
def test_answers_as_transformers(
    recipe: str, tiny_checkpoint: Callable[[str], TinyCheckpoint], onnx_folder: Callable[..., tuple[Path, object]]
) -> None:
    tiny = tiny_checkpoint(recipe)
    prompt = tiny.tokens[:NUM_PROMPT]
    expected = reference_answer(tiny.folder, prompt)
    answer = genai_answer(onnx_folder(recipe, "fp32")[0], prompt)
    assert len(answer) > 1
    assert answer[: len(expected)] == expected[: len(answer)]
    assert len(answer) == len(expected)


@pytest.mark.parametrize(
    ("type_name", "options"), [("fp16", {}), ("int8", {}), ("int4", {}), ("int4", {"group_size": 128})]
)
def test_every_type_runs(
    type_name: str,
    options: dict[str, object],
    tiny_checkpoint: Callable[[str], TinyCheckpoint],
    onnx_folder: Callable[..., tuple[Path, object]],
) -> None:
    tiny = tiny_checkpoint("llama")
    answer = genai_answer(onnx_folder("llama", type_name, **options)[0], tiny.tokens[:NUM_PROMPT])
    assert 1 <= len(answer) <= NUM_NEW
