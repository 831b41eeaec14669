"""optimum's ORTModelForCausalLM loads the folders unchanged. It pins an old transformers, so it has an environment of
its own: the interpreter is named by TAPSTER_OPTIMUM_PYTHON."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from test_genai import NUM_NEW, NUM_PROMPT, reference_answer
from tiny_checkpoints import TinyCheckpoint

_GENERATE = """
import json, sys, torch
from optimum.onnxruntime import ORTModelForCausalLM
from transformers import AutoTokenizer
folder, prompt, num_new = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
model = ORTModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)  # generate asks for it where there are stop strings
ids = torch.tensor([prompt])
made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_new, do_sample=False,
                      tokenizer=tokenizer)
print(json.dumps(made[0, len(prompt):].tolist()))
"""


@pytest.fixture(scope="module")
def optimum_python() -> str:
    path = os.environ.get("TAPSTER_OPTIMUM_PYTHON", "")
    if not Path(path).is_file():
        pytest.skip("no optimum to compare with: set TAPSTER_OPTIMUM_PYTHON to an interpreter that has optimum-onnx")
    return path


@pytest.mark.parametrize("recipe", ["llama", "smollm3", "qwen2", "stablelm", "arcee"])
def test_answers_as_transformers(
    recipe: str,
    optimum_python: str,
    tiny_checkpoint: Callable[[str], TinyCheckpoint],
    onnx_folder: Callable[..., tuple[Path, object]],
) -> None:
    tiny = tiny_checkpoint(recipe)
    prompt = tiny.tokens[:NUM_PROMPT]
    command = [optimum_python, "-c", _GENERATE, str(onnx_folder(recipe, "fp32")[0]), json.dumps(prompt), str(NUM_NEW)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, env=environment)
    assert json.loads(done.stdout.splitlines()[-1]) == reference_answer(tiny.folder, prompt)
