"""Tiny models and rows of tokens for the tests of teachers that have logits."""

from pathlib import Path
from typing import Any

import torch

VOCABULARY = 300


def tiny_model(seed: int = 0, vocab_size: int = VOCABULARY, **values: Any) -> Any:
    """A Llama of random weights, large enough that its distributions are not flat."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
        **values,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).eval()
        with torch.no_grad():
            model.lm_head.weight.normal_(0.0, 0.5)
    return model


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def token_rows(count: int, seed: int = 0, vocab_size: int = VOCABULARY) -> list[dict[str, Any]]:
    """Rows of different lengths, the first third of each without labels."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for index in range(count):
        length = int(torch.randint(6, 24, (), generator=generator))
        ids = torch.randint(3, vocab_size, (length,), generator=generator).tolist()
        labels = [-100 if at < length // 3 else token for at, token in enumerate(ids)]
        rows.append({"input_ids": ids, "labels": labels, "index": index})
    return rows


def packed_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows as documents of one row."""
    return {
        "input_ids": [token for row in rows for token in row["input_ids"]],
        "labels": [label for row in rows for label in (-100, *row["labels"][1:])],
        "segments": [idx for idx, row in enumerate(rows) for _ in row["input_ids"]],
        "index": 0,
    }


def other_tokenizer(size: int = 400, *, has_bos: bool = True) -> Any:
    """Of other merges than ``small_tokenizer``'s, with control tokens of other names; puts a bos before texts."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    from tapster.training.data.sources import SAMPLES
    from tapster.training.student.tokenizer import trained

    words = (SAMPLES / "prose.txt").read_text("utf-8").split()
    parts = [" ".join(word[:3] for word in words), "\n".join(word[3:] for word in words)]
    tokenizer = Tokenizer.from_str(trained(parts, size).to_str())
    if has_bos:
        tokenizer.add_special_tokens(["<s>", "</s>"])
        bos = ("<s>", tokenizer.token_to_id("<s>"))
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[bos])
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
