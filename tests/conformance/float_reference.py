"""Scores texts with transformers in 32-bit floats: ``python float_reference.py CHECKPOINT OUT.json``.

For each text its token ids, the log-probability of each token after the ones before it, and the most likely token
there. It runs as a process of its own, whose memory is free again before a server starts.
"""

import json
import sys
from pathlib import Path
from typing import Any

TEXTS = (
    "The capital of France is Paris, and the capital of Japan is Tokyo. Both are large cities with a long history.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))  # 5\n",
    "<|im_start|>user\nWhat is water made of?<|im_end|>\n<|im_start|>assistant\nWater is made of hydrogen and oxygen.",
    "Naïve café: 1, 2, 3 … 🎉🚀 日本語. The quick brown fox jumps over the lazy dog.",
)


def score(model: Any, ids: list[int]) -> dict[str, Any]:
    """The scores of one text."""
    import torch

    with torch.inference_mode():
        rows = torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1].float(), dim=-1)
    chosen = rows.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    return {"ids": ids, "logprobs": chosen.tolist(), "best": rows.max(dim=-1).values.tolist()}


def main(checkpoint: str, out: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    scores = [score(model, tokenizer(text, add_special_tokens=False)["input_ids"]) for text in TEXTS]
    Path(out).write_text(json.dumps(scores))


if __name__ == "__main__":
    main(*sys.argv[1:])
