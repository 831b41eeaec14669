"""The sandbox of chat templates: the dialect transformers speaks, and the bounds on a hostile template."""

import pytest

from tapster.runtime.chat.bounds import TemplateTooCostly
from tapster.runtime.chat.sandbox import compile_bounded
from tapster.runtime.chat.template import ChatTemplate
from tapster.runtime.errors import RequestError


def render(source: str, **variables: object) -> str:
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    return template.render([{"role": "user", "content": "Hi"}], **variables)  # type: ignore[arg-type]  any variable


SKIP_AND_STOP = (
    "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}"
    "{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}"
)


@pytest.mark.parametrize(
    ("source", "prompt"),
    [
        ("{{ {'b': 'é<', 'a': 1} | tojson }}", '{"b": "é<", "a": 1}'),
        ("{{ {'b': 'é', 'a': 1} | tojson(ensure_ascii=true) }}", '{"b": "\\u00e9", "a": 1}'),
        ("{{ {'b': 1, 'a': 1} | tojson(sort_keys=true) }}", '{"a": 1, "b": 1}'),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("  {% if true %}\nx\n  {% endif %}\ny", "x\ny"),
        (SKIP_AND_STOP, "02"),
        ("{% generation %}{% set a = 1 %}{{ a }}{% endgeneration %}{{ a is defined }}", "1False"),
        ("{{ unknown }}|{{ missing is defined }}|{{ tools is none }}", "|False|True"),
        ("{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}", "2"),
        ("{{ dict(b=3) | tojson }}", '{"b": 3}'),
        ("{{ strftime_now('%%') }}{{ bos_token }}{{ eos_token }}", "%<s></s>"),
        ("{{ documents[0].title }}{{ add_generation_prompt }}{{ date }}", "TTrueD"),
        (
            "{% for i in [] %}x{% else %}empty{% endfor %}{% for i in [7] %}{{ loop.index }}{% endfor %}",
            "empty1",
        ),
    ],
)
def test_dialect(source: str, prompt: str):
    assert render(source, documents=[{"title": "T"}], date="D") == prompt


class TestBounds:
    """A hostile template is stopped. Where a bound is missing, these tests take all the time or
    memory there is."""

    @pytest.mark.parametrize(
        "source",
        [
            "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
            "{% set r = range(100000) | list %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
            "{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n }}{% endmacro %}{{ f(60) }}",
        ],
    )
    def test_time(self, source: str):
        bounded = compile_bounded(source)[1]
        with pytest.raises(TemplateTooCostly, match="takes too long"):
            bounded({}, 0.05)

    @pytest.mark.parametrize(
        "source",
        [
            "{{ 'x' * 10000000000 }}",
            "{{ [0] * 10000000000 }}",
            "{{ 10000000000 * 'x' }}",
            "{{ 2 ** 10000000000 }}",
            "{% set ns = namespace(n=3) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
            "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
            "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
            "{% set ns = namespace(s=[0]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
            "{{ '%10000000000d' % 1 }}",
            "{{ '%*d' % (10000000000, 1) }}",
            "{{ '%10000000000d' | format(1) }}",
            "{{ '{:10000000000}'.format(1) }}",
            "{{ '{:{}}'.format(1, 10000000000) }}",
            "{{ 'x'.ljust(10000000000) }}",
            "{{ 'x' | center(10000000000) }}",
            "{{ 'x\ny' | indent(width=10000000000) }}",
            "{{ [0] | batch(10000000000, 0) | list }}",
            "{{ [0] | tojson(indent=10000000000) }}",
            "{% set text = 'x' * 1000000 %}{% for i in range(99) %}{{ text }}{% endfor %}",
        ],
    )
    def test_size(self, source: str):
        with pytest.raises(RequestError, match=r"fails on these messages: it\w* "):
            render(source)

    @pytest.mark.parametrize(
        ("source", "prompt"),
        [
            ("{{ '{} {:,}'.format(1, 1700000000) }}", "1 1,700,000,000"),
            ("{{ '%d' % 1700000000 }}", "1700000000"),
            ("{{ 'ab'.ljust(4) + '|' }}", "ab  |"),
            ("{% macro f(n) %}{{ n }}{% endmacro %}{{ f(1700000000) }}", "1700000000"),
            ("{{ -7 % 3 }}{{ 2 ** -1 }}{{ 2 ** 3 }}{{ 'a' * 3 }}{{ '=' * 0 }}", "20.58aaa"),
        ],
    )
    def test_ordinary_work_is_not_in_the_way(self, source: str, prompt: str):
        assert render(source) == prompt
