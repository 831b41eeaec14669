"""Tokens that end a generation by their name, whatever a model declares: llama.cpp's lists (llama-vocab.cpp).

All engines take them, so that a model ends its turn at the same place whatever runs it.
"""

from collections.abc import Mapping

ENDS_BY_NAME: frozenset[str] = frozenset(
    (
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>"),
        *("<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]"),
        *("<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "[e~["),
        "<｜end▁of▁sentence｜>",
        # What code models write between files, or to fill up.
        *("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>"),
        *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    )
)


def plain_by_company(texts: Mapping[str, object]) -> frozenset[str]:
    """Of the tokens' texts, those that end nothing and are no control tokens, because of others that are there."""
    plain: set[str] = set()
    if {"<|return|>", "<|call|>"} <= texts.keys() or {"<|flush|>", "<|calls|>"} <= texts.keys():
        plain.add("<|end|>")  # ends a message, and another of the same turn may follow (gpt-oss, Solar)
    if "<|tool_response>" in texts:
        plain.add("</s>")  # an ordinary tag (Gemma 4)
    return frozenset(plain)
