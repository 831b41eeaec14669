"""Which of llama.cpp's ways to split text into words is the one that tokenizer.json describes.

llama.cpp knows splits only by name (``tokenizer.ggml.pre``; the expressions are in ``src/llama-vocab.cpp``). A split
is recognised by how it is written, else by what it does to the texts of the corpus: the same expression is written
in many ways. Where several names stand for one split, the name is the one of the family that made it known.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...runtime.errors import ConversionError
from ...runtime.tokenizer.vocabulary import flat_steps
from .corpus import PLAIN_TEXTS

_SUFFIXES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
)
_CASED_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ASCII_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS_FROM_THE_RIGHT = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
_EAST_ASIAN = r"[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+"
_BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"

_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_BYTES = _GPT2 | {"use_regex": False}
_EACH_DIGIT = {"type": "Digits", "individual_digits": True}


def _split(expression: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


class Split(NamedTuple):
    """``pre``: llama.cpp's name. ``ignore_merges``: whether llama.cpp then takes a word that is a token whole.

    ``has_nfc``: the families that share a split differ in whether they normalize; None where it does not matter.
    """

    pre: str
    steps: list[dict[str, Any]]
    ignore_merges: bool = False
    has_nfc: bool | None = None


SPLITS = [
    Split("gpt-2", [_GPT2], has_nfc=False),
    Split("olmo", [_GPT2], has_nfc=True),
    Split("smollm", [_EACH_DIGIT, _GPT2]),
    Split("llama-bpe", [_split(_SUFFIXES + _WORDS + r"|\p{N}{1,3}" + _REST), _BYTES], ignore_merges=True),
    Split("smaug-bpe", [_split(_SUFFIXES + _WORDS + r"|\p{N}{1,3}" + _REST), _BYTES]),
    Split("qwen2", [_split(_SUFFIXES + _WORDS + r"|\p{N}" + _REST), _BYTES]),
    Split(
        "qwen35",
        [
            _split(
                _SUFFIXES + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
            _BYTES,
        ],
    ),
    Split("gpt-4o", [_split(_CASED % (_SUFFIXES + "?", _SUFFIXES + "?") + r"|\p{N}{1,3}" + _CASED_REST), _BYTES]),
    Split("tekken", [_split(_CASED % ("", "") + r"|\p{N}" + _CASED_REST), _BYTES], ignore_merges=True),
    Split("deepseek-v3", [_split(r"\p{N}{1,3}"), _split(r"[一-龥぀-ゟ゠-ヿ]+"), _split(_ASCII_WORDS), _BYTES]),
    Split(
        "deepseek-coder",
        [
            _split(r"[\r\n]"),
            _split(r"\s?\p{L}+"),
            _split(r"\s?\p{P}+"),
            _split(r"[一-龥ࠀ-一가-퟿]+"),
            _EACH_DIGIT,
            _BYTES,
        ],
    ),
    Split("afmoe", [_split(_DIGITS_FROM_THE_RIGHT), _split(_EAST_ASIAN), _split(_ASCII_WORDS), _BYTES]),
    Split(
        "bailingmoe",
        [
            _split(
                r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
                r"|\s*[\r\n]|\s+(?!\S)|\s+"
            ),
            _BYTES,
        ],
    ),
    Split(
        "seed-coder",
        [
            _split(_SUFFIXES + _WORDS + r"|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"),
            _BYTES,
        ],
    ),
    Split("ufakzeka", [_split(_WORDS[1:] + r"|\p{N}" + _REST), _BYTES]),
    Split(
        "minicpm5", [_split(r"\p{N}{1,3}"), _split(_SUFFIXES + _WORDS + r"|\p{N}+" + _REST), _BYTES], ignore_merges=True
    ),
    Split(
        "default",
        [
            _split(r"[\p{P}\$\+<=>\^~\|]+"),
            _split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
            _split(r"\p{N}+"),
            _split(r"[0-9][0-9][0-9]"),
            _BYTES,
        ],
    ),
    Split("bloom", [_split(_BLOOM), _BYTES]),
    Split("viking", [_split(_BLOOM), _EACH_DIGIT, _BYTES]),
]

_ALIASES = {
    "llama-bpe": "llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 glm4 glm5",
    "smaug-bpe": "dbrx chatglm-bpe",
    "gpt-2": "phi-2 mpt jais trillion granite-docling gigachat a.x-4.0 mellum exaone4",
    "smollm": "starcoder refact command-r codeshell exaone minerva-7b mellum2",
    "qwen2": "stablelm2 deepseek-r1-qwen kormo f2llmv2 hunyuan solar-open megrez grok-2",
    "gpt-4o": "llama4 kanana2 minimax-m2 talkie",
    "deepseek-v3": "hunyuan-dense joyai-llm hy_v4",
    "bailingmoe": "bailingmoe2 llada-moe",
    "bloom": "poro-chat gpt3-finnish",
}
"""Other names that llama.cpp has for a split, by the name used here."""


def split_named(pre: str) -> Split:
    """The split that llama.cpp makes under the name ``pre``. ConversionError for one that is not known here."""
    name = next((name for name, others in _ALIASES.items() if pre in others.split()), pre)
    found = next((split for split in SPLITS if split.pre == name), None)
    if found is None:
        raise ConversionError(f"the pre-tokenizer {pre!r} cannot be written as a tokenizer.json")
    return found


def choose_pretokenizer(description: dict[str, Any]) -> str:
    """llama.cpp's name for the split that ``description`` (tokenizer.json) makes. ConversionError when it has none."""
    ignore_merges = bool(description["model"].get("ignore_merges"))
    has_nfc = "NFC" in {step["type"] for step in flat_steps(description.get("normalizer"), "normalizers")}
    steps = list(flat_steps(description.get("pre_tokenizer"), "pretokenizers"))
    fitting = [split for split in SPLITS if _as_written(split.steps) == _as_written(steps)] or _behaving_like(steps)
    if not fitting:
        raise ConversionError(
            f"llama.cpp has no pre-tokenizer that splits text like this tokenizer's: {json.dumps(steps)[:300]}"
        )
    return max(fitting, key=lambda split: (split.ignore_merges == ignore_merges, split.has_nfc == has_nfc)).pre


def _as_written(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Without what does not change the words."""
    return [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]


def _behaving_like(steps: Sequence[Mapping[str, Any]]) -> list[Split]:
    wanted = _words(steps)
    return [split for split in SPLITS if _words(split.steps) == wanted]


def _words(steps: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    from tokenizers import Tokenizer

    description = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    try:
        splitter: Any = Tokenizer.from_str(json.dumps(description)).pre_tokenizer
    except Exception as error:  # the library raises nothing more particular
        raise ConversionError(f"tokenizer.json has a pre_tokenizer that cannot be read: {error}") from error
    return [[word for word, _ in splitter.pre_tokenize_str(text)] for text in PLAIN_TEXTS]
