"""The files that other programs read beside an artifact."""

import configparser
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from gguf_copy import copy_gguf
from jinja2 import Environment

from tapster.converters.publish.go_template import template_parts
from tapster.converters.publish.sidecars import go_template, sidecars, stop_strings, write_sidecars
from tapster.runtime.chat.builtin import BUILTIN_NAMES, builtin_source
from tapster.runtime.chat.template import ChatTemplate
from tapster.runtime.errors import ConversionError
from tapster.runtime.gguf_facts import STOP_STRINGS
from tapster.runtime.profile import ModelProfile, load_profile

TEMPLATES = Path(__file__).parents[1] / "templates"
QUESTION, ANSWER = {"role": "user", "content": "Why?\n{{ .Content }}"}, {"role": "assistant", "content": "Because."}
SYSTEM = {"role": "system", "content": "Be kind."}
CHATS = ([QUESTION], [SYSTEM, QUESTION], [QUESTION, ANSWER, QUESTION], [SYSTEM, QUESTION, ANSWER, QUESTION])

_JINJA = {
    '{{ if and .Messages (ne (index .Messages 0).Role "system") }}': "{% if messages[0].role != 'system' %}",
    "{{ range $i, $_ := .Messages }}": "{% for m in messages %}",
    "{{ $last := eq (len (slice $.Messages $i)) 1 }}": "",
    '{{ if not (and (eq $i 1) (eq (index $.Messages 0).Role "system")) }}': (
        "{% if not (loop.index0 == 1 and messages[0].role == 'system') %}"
    ),
    "{{ if not $last }}": "{% if not loop.last %}",
    '{{ if and $last (ne .Role "assistant") }}': "{% if loop.last and m.role != 'assistant' %}",
    "{{ .Content }}": "{{ m.content }}",
    '{{ "{{" }}': "{{ '{{' }}",
}


def run_go(template: str, messages: list[dict[str, str]]) -> str:
    """What Go makes of the few actions that we write, by way of Jinja; anything else fails."""
    ends: list[str] = []

    def translated(match: re.Match[str]) -> str:
        action = match[0]
        if found := re.fullmatch(r'\{\{ (else )?if eq \.Role "(\w+)" \}\}', action):
            ends.extend([] if found[1] else ["{% endif %}"])
            return f"{{% {'elif' if found[1] else 'if'} m.role == '{found[2]}' %}}"
        if action == "{{ end }}":
            return ends.pop()
        if action.startswith(("{{ if", "{{ range")):
            ends.append("{% endif %}" if action.startswith("{{ if") else "{% endfor %}")
        return _JINJA[action]

    source = re.sub(r'\{\{ "\{\{" \}\}|\{\{.*?\}\}', translated, template)
    assert not ends
    environment = Environment(keep_trailing_newline=True)
    return environment.from_string(source).render(messages=messages)


@pytest.fixture(scope="module")
def profile(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelProfile:
    """Two stops, one with signs that the formats have to write specially; sampling."""
    fields = {
        "tokenizer.chat_template": builtin_source("kodalite"),
        STOP_STRINGS: ["\n# Next;", 'say "stop"'],
    }
    path = copy_gguf(tiny_model, tmp_path_factory.mktemp("side") / "Tiny-Q8_0.gguf", fields=fields)
    return replace(load_profile(path), sampling={"temperature": 0.6, "top_p": 0.9, "penalty_last_n": 64})


def test_every_stop_is_in_every_file_that_can_hold_it(profile: ModelProfile) -> None:
    stops = ["<|end|>", "\n# Next;", 'say "stop"']
    assert stop_strings(profile) == stops
    files = sidecars(profile, repo="Acme/Tiny-🧊-GGUF")
    assert list(files) == ["Modelfile", "params", "preset.ini", "model.yaml"]
    expected = {"stop": stops, "temperature": 0.6, "top_p": 0.9, "repeat_last_n": 64}
    assert json.loads(files["params"]) == expected
    card = yaml.safe_load(files["model.yaml"])
    assert card["model"] == "acme/tiny-🧊"
    assert card["base"][0]["key"] == "acme/tiny-🧊-gguf"
    assert card["base"][0]["sources"][0] == {"type": "huggingface", "user": "Acme", "repo": "Tiny-🧊-GGUF"}
    fields = {field["key"]: field["value"] for field in card["config"]["operation"]["fields"]}
    assert fields == {
        "llm.prediction.stopStrings": stops,
        "llm.prediction.temperature": 0.6,
        "llm.prediction.topPSampling": {"checked": True, "value": 0.9},
    }


def test_without_a_repository_its_place_is_left_open(profile: ModelProfile) -> None:
    [base] = yaml.safe_load(sidecars(profile)["model.yaml"])["base"]
    assert base["key"] == "user/tiny-gguf"
    assert base["sources"] == [{"type": "huggingface", "user": "USER", "repo": "Tiny-GGUF"}]


def test_the_go_template_alone(profile: ModelProfile) -> None:
    go = go_template(profile)
    assert go is not None
    assert go in sidecars(profile)["Modelfile"]
    assert go_template(replace(profile, chat_templates={})) is None


def test_the_modelfile(profile: ModelProfile) -> None:
    text = sidecars(profile)["Modelfile"]
    assert text.startswith('FROM ./Tiny-Q8_0.gguf\nTEMPLATE """')
    assert 'PARAMETER stop """\n# Next;"""\n' in text
    assert 'PARAMETER stop """say "stop""""\n' in text
    assert 'PARAMETER stop "<|end|>"\n' in text
    assert "PARAMETER temperature 0.6\n" in text


def test_the_preset(profile: ModelProfile) -> None:
    text = sidecars(profile)["preset.ini"]
    head, _, body = text.partition("\n\n")
    assert head == "version = 1"
    preset = configparser.ConfigParser(interpolation=None)
    preset.read_string(body)
    values = dict(preset["Tiny-Q8_0"])
    assert values == {
        "model": "Tiny-Q8_0.gguf",
        "reverse-prompt": "<|end|>",
        "temp": "0.6",
        "top-p": "0.9",
        "repeat-last-n": "64",
    }
    assert r"bring: \n\x23 Next\x3B" in body  # told in a comment: a preset holds one
    alone = sidecars(replace(profile, end_of_turn=None))["preset.ini"]
    assert r"reverse-prompt = \n\x23 Next\x3B" in alone


@pytest.mark.parametrize("name", [name for name in BUILTIN_NAMES if name not in ("memphis", "memphis-rationale")])
def test_go_says_what_jinja_says(name: str) -> None:
    template = ChatTemplate(builtin_source(name), bos_token="<s>", eos_token="</s>", name=name)
    parts = template_parts(template)
    assert parts
    for chat in CHATS:
        assert run_go(parts.to_go(), chat) == template.render(chat)


def test_a_system_message_inside_the_last_users_turn_is_more_than_parts() -> None:
    source = (TEMPLATES / "mistral.jinja").read_text()
    assert template_parts(ChatTemplate(source, bos_token="<s>", eos_token="</s>")) is None


def test_a_template_that_refuses_system_messages_does_without() -> None:
    template = ChatTemplate((TEMPLATES / "gemma.jinja").read_text(), bos_token="<bos>", eos_token="</s>")
    parts = template_parts(template)
    assert parts
    assert parts.system is None
    for chat in ([QUESTION], [QUESTION, ANSWER, QUESTION]):
        assert run_go(parts.to_go(), chat) == template.render(chat)


def test_the_date_is_not_fixed_in_a_file() -> None:
    source = "{{ strftime_now('%Y') }}{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    assert template_parts(ChatTemplate(source, bos_token=None, eos_token=None)) is None


def test_a_numbered_conversation_has_no_go_template(profile: ModelProfile) -> None:
    source = "{% for m in messages %}{{ loop.index }}. {{ m.role }}: {{ m.content }}\n{% endfor %}"
    text = sidecars(replace(profile, chat_templates={"default": source}))["Modelfile"]
    assert "TEMPLATE" not in re.sub("^#.*$", "", text, flags=re.MULTILINE)
    assert "# No TEMPLATE" in text


def test_the_real_model(demo_model: Path) -> None:
    profile = load_profile(demo_model)
    text = sidecars(profile)["Modelfile"]
    go = text.partition('TEMPLATE """')[2].partition('"""')[0]
    template = ChatTemplate(profile.chat_templates["default"], bos_token=profile.bos_token, eos_token=profile.eos_token)
    for chat in CHATS:
        assert run_go(go, chat) == template.render(chat)
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert run_go(go, [QUESTION, ANSWER]).endswith("assistant\nBecause.")  # left open, to be continued


def test_the_tokenizers_bos_is_not_written_twice() -> None:
    chatml = ChatTemplate("{{ bos_token }}" + builtin_source("chatml"), bos_token="<s>", eos_token=None)
    for messages in ([QUESTION], [SYSTEM, QUESTION]):
        kept, without = template_parts(chatml), template_parts(chatml, without_bos="<s>")
        assert kept
        assert without
        assert run_go(kept.to_go(), messages) == "<s>" + run_go(without.to_go(), messages) == chatml.render(messages)


def test_a_folder_that_is_not_there(tmp_path: Path, profile: ModelProfile) -> None:
    assert [path.name for path in write_sidecars(tmp_path, {"a": "1\n"})] == ["a"]
    with pytest.raises(ConversionError, match="cannot write the sidecars"):
        write_sidecars(tmp_path / "none", sidecars(profile))
