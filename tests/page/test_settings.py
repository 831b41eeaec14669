"""What stands in the fields, as sampling parameters and stop strings."""

from functools import partial
from typing import Any

import pytest

from tapster.runtime.errors import RequestError
from tapster.runtime.sampling import SamplingParams
from tapster.server.page.settings import SAMPLING_FIELDS, Settings, field_text


def _defaults(**overrides: Any) -> SamplingParams:
    return SamplingParams(**{"temperature": 0.7, "top_k": 40} | {k: v for k, v in overrides.items() if v is not None})


def test_blank_fields_leave_the_defaults() -> None:
    assert Settings(top_k=" ").params(_defaults) == _defaults()


def test_fields_override_the_defaults() -> None:
    settings = Settings(
        temperature="0", top_p="0.5", top_k="3", min_p=".1", max_tokens=" 16 ", seed="4294967294", system="x", stop="y"
    )
    assert settings.params(_defaults) == SamplingParams(
        temperature=0.0, top_p=0.5, top_k=3, min_p=0.1, max_tokens=16, seed=4294967294
    )


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("temperature", "hot", "temperature must be a number, not 'hot'"),
        ("temperature", "nan", "temperature must be between 0 and 100, not nan"),
        ("top_k", "1.5", "top_k must be a whole number, not '1.5'"),
        ("max_tokens", "-1", "max_tokens must be at least 0, not -1"),
        ("seed", "4294967295", "seed must be between 0 and 4294967294, not 4294967295"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(field: str, text: str, message: str) -> None:
    settings = partial(Settings, **{field: text})
    with pytest.raises(RequestError, match=message) as caught:
        settings().params(_defaults)
    assert caught.value.param == field


def test_a_field_shows_its_default_and_nothing_where_there_is_none() -> None:
    shown = {name: field_text(_defaults(), name) for name in SAMPLING_FIELDS}
    assert shown == {"temperature": "0.7", "top_p": "1", "top_k": "40", "min_p": "0", "max_tokens": "", "seed": ""}


def test_what_the_fields_show_means_the_defaults() -> None:
    shown = {name: field_text(_defaults(), name) for name in SAMPLING_FIELDS}
    assert Settings(**shown).params(_defaults) == _defaults()


def test_stop_strings_are_one_a_line_with_escapes() -> None:
    assert Settings(stop="<|end|>\n\n\\n\\n\n a \n\\t\\\\n\\q\\").stops() == ["<|end|>", "\n\n", " a ", "\t\\n\\q\\"]
    assert Settings().stops() == []
