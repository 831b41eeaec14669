"""Whether a teacher agrees with itself, and how difficult a question is for it.

Self-consistency after Wang et al. (arXiv 2203.11171): the share of samples that come to the most frequent answer. Where
answers cannot be told apart by a number, a letter or a word, it is the mean similarity of the samples' texts.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

_NUMBER = r"-?\$?\d[\d,]*(?:\.\d+)?"
_MARKED = re.compile(
    rf"(?:####|\\boxed\{{|(?:final\s+)?answer(?:\s+is)?\s*:?)\s*\**\s*\(?({_NUMBER}|[A-J]\b|yes\b|no\b|true\b|false\b)",
    re.IGNORECASE,
)
_ANY_NUMBER = re.compile(_NUMBER)
_ORDERS, _BETA = range(1, 7), 2.0


def marked_answer(text: str) -> str | None:
    """The final answer where a text says which it is: ``#### 5``, ``\\boxed{5}``, ``Answer: B``, ``answer is 5``."""
    found = _MARKED.findall(text)
    return _canonical(found[-1]) if found else None


def final_answer(text: str) -> str | None:
    """The marked answer; else the last number; None where there is neither."""
    marked = marked_answer(text)
    if marked is not None:
        return marked
    numbers = _ANY_NUMBER.findall(text)
    return _canonical(numbers[-1]) if numbers else None


def self_consistency(samples: Sequence[str]) -> float | None:
    """Between 0 and 1; None for fewer than two samples."""
    if len(samples) < 2:
        return None
    answers = [final_answer(sample) for sample in samples]
    if all(answer is not None for answer in answers):
        return Counter(answers).most_common(1)[0][1] / len(answers)
    grams = [_grams(sample) for sample in samples]
    pairs = list(combinations(grams, 2))
    return sum(_similarity(one, other) for one, other in pairs) / len(pairs)


def chrf(one: str, other: str) -> float:
    """Character n-gram F-score of two texts (Popović 2015), here the mean of both directions, between 0 and 1."""
    return _similarity(_grams(one), _grams(other))


def difficulty(
    entropy: float | None, consistency: float | None, answers: Sequence[str], reference: str | None
) -> float | None:
    """Between 0 and 1; None where nothing is known.

    Where the true answer is known (``reference`` has a marked one), the share of answers that miss it. Else the mean of
    what speaks for difficulty: ``1 - self_consistency``, and ``1 - exp(-entropy)``, which is how much of each next
    token's probability lies, in the geometric mean, on other tokens.
    """
    gold = marked_answer(reference) if reference else None
    if gold is not None and answers:
        return sum(final_answer(answer) != gold for answer in answers) / len(answers)
    signs = []
    if consistency is not None:
        signs.append(1.0 - consistency)
    if entropy is not None:
        from math import exp

        signs.append(1.0 - exp(-entropy))
    return sum(signs) / len(signs) if signs else None


def _canonical(answer: str) -> str:
    """Numbers without commas, currency and trailing zeros; words in small letters."""
    plain = answer.replace(",", "").replace("$", "")
    try:
        return f"{float(plain):.10g}"
    except ValueError:
        return plain.lower()


def _grams(text: str) -> list[Counter[str]]:
    letters = "".join(text.split())
    return [Counter(letters[start : start + n] for start in range(len(letters) - n + 1)) for n in _ORDERS]


def _similarity(one: list[Counter[str]], other: list[Counter[str]]) -> float:
    scores = [
        _f_score((first & second).total(), first.total(), second.total())
        for first, second in zip(one, other, strict=True)
        if first or second
    ]
    return sum(scores) / len(scores) if scores else 1.0


def _f_score(common: int, first: int, second: int) -> float:
    if not common:
        return 0.0
    precision, recall = common / first, common / second
    weight = _BETA**2
    forward = (1 + weight) * precision * recall / (weight * precision + recall)
    backward = (1 + weight) * precision * recall / (weight * recall + precision)
    return (forward + backward) / 2
