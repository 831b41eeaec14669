"""Tokenizers of students from scratch: another model's, one made from the training text, or a GGUF vocabulary.

All are byte-level BPE with GPT-2's way to split a text: words with the space before them, digits, other signs, white
space. ``<|`` and ``|>`` are never merged, in the training text or elsewhere, as in GPT-2's own vocabulary: markers such
as ``<|end|>`` stay plain text of five tokens, so that they end in the same tokens whatever stands around them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

END = "<|endoftext|>"
_SMALLEST = 256 + 1 + 3
_TRAIN = re.compile(r"train:(\d+)")
_MARKERS = ("user", "assistant", "system", "end", "User", "Assistant", "Rationale", "Answer")
"""Words that stand between signs in chat templates, where the training text does not have them."""
_MARKER_REPEATS = 100
_PRE = ("gpt-2", "default")
_CONTROL = 3


def make_tokenizer(
    name: str, *, texts: Callable[[], Iterable[str]], resolve_model: Callable[[str], Path]
) -> PreTrainedTokenizerBase:
    """By the recipe's ``student.tokenizer``. ``texts``: what ``train:N`` learns from.

    ConfigError or ModelError when there is none of this name, or it cannot be read.
    """
    if found := _TRAIN.fullmatch(name):
        return wrapped(trained(texts(), int(found[1])))
    if name.startswith("train:"):
        raise ConfigError(f"student.tokenizer {name!r}: write train:N with the number of tokens, such as train:4096")
    if name.lower().endswith(".gguf"):
        return wrapped(*gguf_vocabulary(Path(name).expanduser()))
    return open_tokenizer(name, resolve_model)


def open_tokenizer(name: str, resolve_model: Callable[[str], Path]) -> PreTrainedTokenizerBase:
    """The tokenizer of a model: of a folder, or of what ``resolve_model`` makes one of."""
    from transformers import AutoTokenizer

    folder = Path(name).expanduser()
    place = folder if folder.is_dir() else resolve_model(name)
    try:
        return AutoTokenizer.from_pretrained(str(place))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"cannot open the tokenizer of {name}: {' '.join(str(error).split())[:200]}") from error


def trained(texts: Iterable[str], num_tokens: int) -> Tokenizer:
    """A byte-level BPE of ``num_tokens`` tokens. ConfigError when the text is too little for so many."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    if num_tokens < _SMALLEST:
        raise ConfigError(
            f"student.tokenizer train:{num_tokens} is too small: 256 bytes and a few more are {_SMALLEST}"
        )
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    without_markers = pre_tokenizers.Split(Regex(r"<\||\|>"), "removed")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([without_markers, split])
    trainer = trainers.BpeTrainer(
        vocab_size=num_tokens,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_with_markers(texts), trainer)
    if tokenizer.get_vocab_size() < num_tokens:
        raise ConfigError(
            f"student.tokenizer train:{num_tokens}: the training text has only {tokenizer.get_vocab_size()} different "
            f"tokens; ask for fewer, or give more text"
        )
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _with_markers(texts: Iterable[str]) -> Iterator[str]:
    yield from texts
    for word in _MARKERS:
        yield "\n".join([word] * _MARKER_REPEATS)


def gguf_vocabulary(path: Path) -> tuple[Tokenizer, str]:
    """GPT-2's kind of vocabulary out of a GGUF file, which may hold nothing else, and its end-of-text token."""
    from ...runtime.gguf_facts import GGUFFacts

    metadata = GGUFFacts(path).metadata
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or pre not in _PRE:
        raise ModelError(
            f"{path} has a vocabulary of the kind {kind} that splits text as {pre}; only GPT-2's can be taken from a "
            f"GGUF file: convert the model with tapster convert --to hf and name the folder"
        )
    try:
        return _byte_level(metadata)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ModelError(f"the vocabulary of {path} is damaged ({error}): download it again") from error


def _byte_level(metadata: Any) -> tuple[Tokenizer, str]:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = list(metadata["tokenizer.ggml.tokens"])
    merges = [_cut(merge) for merge in metadata["tokenizer.ggml.merges"]]
    kinds = list(metadata.get("tokenizer.ggml.token_type") or [])
    end = tokens[metadata["tokenizer.ggml.eos_token_id"]]
    tokenizer = Tokenizer(models.BPE({text: idx for idx, text in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    control = [text for text, kind in zip(tokens, kinds, strict=False) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in dict.fromkeys([*control, end])])
    return tokenizer, end


def _cut(merge: str) -> tuple[str, str]:
    """At the first space behind the first character, as llama.cpp does it."""
    at = merge.find(" ", 1)
    return merge[:at], merge[at + 1 :]


def wrapped(tokenizer: Tokenizer, end: str = END) -> PreTrainedTokenizerBase:
    """As transformers uses and saves it. Begin, end and padding are one token, as in GPT-2; padding is masked."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=end,
        eos_token=end,
        pad_token=end,
        clean_up_tokenization_spaces=False,
        add_prefix_space=False,
    )
