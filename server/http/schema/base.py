"""What every request and every response model shares."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_INT = 2**31 - 1
"""The largest number that the engines' C integers hold."""

TokenId = Annotated[int, Field(ge=0, le=MAX_INT)]
Name = Annotated[str, Field(min_length=1)]


class RequestModel(BaseModel):
    """Untrusted JSON: exact types (no "1" and no true for 1), no unknown field, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ResponseModel(BaseModel):
    """A body that we send: exactly these fields. One without a default is always there, null or not."""

    model_config = ConfigDict(extra="forbid", strict=True)
