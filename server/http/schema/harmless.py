"""The parameters that are accepted although nothing comes of them, each with the reason. There are no others.

A value that would ask for something (``store: true``) is refused like an unknown parameter.
"""

from typing import Any, Literal

from pydantic import Field

from .base import RequestModel


class Harmless(RequestModel):
    """Parameters of a hosted service that a local one satisfies by doing nothing."""

    user: str | None = Field(None, description="A label for the provider's records; none are kept.")
    safety_identifier: str | None = Field(None, description="As `user`.")
    metadata: dict[str, Any] | None = Field(None, description="Labels for stored answers; none are stored.")
    store: Literal[False] | None = Field(None, description="Answers are never stored.")
    service_tier: Literal["auto", "default"] | None = Field(None, description="There is one tier.")
    prompt_cache_key: str | None = Field(
        None, description="Prompts share their common beginnings by content, whatever the key."
    )
    prompt_cache_retention: Literal["in_memory"] | None = Field(
        None, description="Prompts are cached in memory, and only there."
    )


class HarmlessForChat(Harmless):
    """The same for chat."""

    parallel_tool_calls: Literal[True] | None = Field(
        None, description="The model may always make several calls in one answer."
    )
    modalities: list[Literal["text"]] | None = Field(None, description="Answers are text.", max_length=1)
