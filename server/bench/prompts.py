"""Prompts of a known length: plain sentences whose every word is one token to the usual tokenizers.

Byte-level BPE vocabularies of some size (SmolLM2, Llama 3, Qwen and others) hold each of these words, with
its leading space, as one token, so a prompt's tokens can be counted without a tokenizer. What another model
makes of them is in the usage that its server reports.
"""

import random

_OPENING = "The This Every One Another Some Each Our My Your"
_QUALITY = (
    "old new young small large quiet busy clever famous strong gentle simple modern ancient bright dark "
    "warm cold green blue golden wooden heavy light curious careful happy lucky hidden early"
)
_WHO = (
    "farmer sailor teacher doctor writer painter student engineer king child friend neighbor artist soldier "
    "hunter singer baker driver gardener scientist merchant captain horse dog bird cat fox lion mouse"
)
_DID = (
    "carried painted followed found sold watched helped moved repaired described measured opened visited "
    "remembered built covered crossed studied protected collected counted borrowed cleaned designed "
    "discovered finished guarded kept lifted noticed"
)
_WHAT = (
    "house bridge river garden market table book letter boat tower picture road basket window door ship "
    "song coat machine stone tree field village church wall bottle clock map key lamp"
)
_WHERE = "near behind under above beyond beside inside outside across around"
_SENTENCE = tuple(
    words.split() for words in (_OPENING, _QUALITY, _WHO, _DID, "the", _QUALITY, _WHAT, _WHERE, "the", _QUALITY, _WHAT)
)


def prompt(num_tokens: int, seed: str) -> str:
    """Sentences of ``num_tokens`` tokens, cut off at the last one. The same seed gives the same text."""
    choose = random.Random(seed).choice
    pieces: list[str] = []
    while len(pieces) < num_tokens:
        pieces += [f" {choose(words)}" for words in _SENTENCE]
        pieces.append(".")
    return "".join(pieces[:num_tokens]).removeprefix(" ")


def prompts(count: int, num_tokens: int, seed: str) -> tuple[str, ...]:
    """``count`` different prompts of ``num_tokens`` tokens each."""
    return tuple(prompt(num_tokens, f"{seed}/{index}") for index in range(count))


def prompts_with_prefix(count: int, prefix_tokens: int, own_tokens: int, seed: str) -> tuple[str, ...]:
    """``count`` prompts of the same first ``prefix_tokens`` tokens and ``own_tokens`` of their own."""
    prefix = prompt(prefix_tokens, f"{seed}/prefix")
    return tuple(f"{prefix} {own}" for own in prompts(count, own_tokens, seed))
