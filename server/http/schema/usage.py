"""Token counts, with the details that OpenAI's schema lists."""

from .base import ResponseModel


class PromptTokensDetails(ResponseModel):
    """Of the prompt's tokens: how many came from the cache."""

    audio_tokens: int
    cached_tokens: int


class CompletionTokensDetails(ResponseModel):
    """Of the answer's tokens: how many were reasoning."""

    accepted_prediction_tokens: int
    audio_tokens: int
    reasoning_tokens: int
    rejected_prediction_tokens: int


class CompletionUsage(ResponseModel):
    """Token counts of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails
