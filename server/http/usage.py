"""Token counts of a response."""

from collections.abc import Sequence
from typing import Any

from ...runtime.text.types import Usage


def usage_body(prompts: Sequence[Sequence[Usage]]) -> dict[str, Any]:
    """The ``usage`` object. Each group is the answers to one prompt, whose tokens count once."""
    prompt_tokens = sum(answers[0].prompt_tokens for answers in prompts)
    # Of several answers to a prompt all but one find it cached; what was there before is the smallest.
    cached = sum(min(answer.cached_tokens for answer in answers) for answers in prompts)
    completion_tokens = sum(answer.completion_tokens for answers in prompts for answer in answers)
    reasoning = sum(answer.reasoning_tokens for answers in prompts for answer in answers)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": cached},
        "completion_tokens_details": {
            "accepted_prediction_tokens": 0,
            "audio_tokens": 0,
            "reasoning_tokens": reasoning,
            "rejected_prediction_tokens": 0,
        },
    }
