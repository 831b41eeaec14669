"""How a turn ends, what the model is and how to choose tokens, as GGUF says it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_tokenizer import CHATML

from tapster.converters.checkpoint.checkpoint import Checkpoint
from tapster.converters.gguf.metadata import (
    general_metadata,
    sampling_metadata,
    size_label,
    start_metadata,
    stop_metadata,
)
from tapster.converters.gguf.plan import ModelPlan, TensorPlan
from tapster.converters.gguf.templates import template_metadata
from tapster.converters.proof.source import checkpoint_source
from tapster.converters.tokenizer.vocabulary import TokenType, Vocabulary
from tapster.runtime.errors import ConversionError

TOKENS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|end|>", "<stop-a>", "<stop-b>", "<stop-c>", "a", "b"]
TYPES = [TokenType.CONTROL] * 8 + [TokenType.NORMAL] * 2
TURNS = "{% for message in messages %}<user>{{ message.content }}[/over]\n{% endfor %}"
EOS, EOT, EOM = (f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
BOS = "tokenizer.ggml.bos_token_id"


def checkpoint(**parts: Any) -> Checkpoint:
    empty: dict[str, Any] = {name: {} for name in ("config", "generation_config", "tokenizer_config")}
    values = {"special_tokens_map": {}, "chat_templates": {}, "tensors": {}, "path": Path("/made/smol-llama-v2-135M")}
    return Checkpoint(**{**empty, **values, **parts})


def vocabulary(**special: int) -> Vocabulary:
    return Vocabulary("gpt2", "gpt-2", TOKENS, [int(kind) for kind in TYPES], special={"bos": 0, "eos": 1, **special})


def stops(template: str | None = None, **generation: Any) -> tuple[dict[str, Any], list[str]]:
    notes: list[str] = []
    templates = {} if template is None else {"default": template}
    parts = checkpoint(generation_config=generation, config={"eos_token_id": 5}, chat_templates=templates)
    return stop_metadata(parts, vocabulary(), notes), notes


def test_the_generation_config_wins_over_the_config() -> None:
    assert stops(eos_token_id=4)[0] == {EOS: 4, EOT: 1}  # the tokenizer's own end still ends it, too


def test_the_config_serves_where_the_generation_config_says_nothing() -> None:
    assert stops()[0] == {EOS: 5, EOT: 1}


@pytest.mark.parametrize(
    ("template", "declared", "expected"),
    [
        (None, [0, 1], {EOS: 1, EOT: 0}),  # the tokenizer's own, which templates write
        (None, [5, 4, 1], {EOS: 1, EOT: 5, EOM: 4}),
        (None, [0, 5], {EOS: 0, EOT: 5, EOM: 1}),
        ("{{ messages[0].content }}{{ eos_token }}", [0, 5], {EOS: 1, EOT: 0, EOM: 5}),
    ],
)
def test_eos_is_the_tokenizers(template: str | None, declared: list[int], expected: dict[str, int]) -> None:
    values, _ = stops(template, eos_token_id=declared)
    assert {key: values[key] for key in expected} == expected


def test_three_ids_have_keys() -> None:
    values, notes = stops(eos_token_id=[1, 5, 6])
    assert values == {EOS: 1, EOT: 5, EOM: 6}
    assert not notes


def test_the_end_of_turn_of_the_template_is_eot() -> None:
    assert stops(CHATML, eos_token_id=[1, 5])[0] == {EOS: 1, EOT: 3, EOM: 5}
    assert stops(CHATML, eos_token_id=3)[0] == {EOS: 3, EOT: 1}


def test_tokens_that_llama_cpp_knows_by_name_give_way() -> None:
    values, notes = stops(eos_token_id=[1, 3, 4, 5, 6])
    assert values == {EOS: 1, EOT: 5, EOM: 6}
    assert not notes


def test_a_fourth_unknown_token_becomes_a_stop_string() -> None:
    values, notes = stops(eos_token_id=[1, 5, 6, 7])
    assert values == {EOS: 1, EOT: 5, EOM: 6, "tapster.stop_strings": ["<stop-c>"]}
    assert "<stop-c>" in notes[0]


def test_an_end_of_turn_in_plain_text_is_a_stop_string() -> None:
    values, _ = stops(TURNS, eos_token_id=1, stop_strings=["User:"])
    assert values == {EOS: 1, "tapster.stop_strings": ["User:", "[/over]"]}


def test_an_end_of_turn_that_may_come_in_pieces_is_a_stop_string() -> None:
    plain = Vocabulary("gpt2", "gpt-2", ["x", "[/over]"], [1, 1], special={"eos": 0})
    values = stop_metadata(checkpoint(chat_templates={"default": TURNS}), plain, [])
    assert values == {EOS: 0, "tapster.stop_strings": ["[/over]"]}


def test_a_single_stop_string_counts_as_a_list_of_one() -> None:
    assert stops(eos_token_id=1, stop_strings="User:")[0]["tapster.stop_strings"] == ["User:"]


@pytest.mark.parametrize("wrong", [10, -1, "1", [1, None], True, [[1]]])
def test_an_end_outside_the_vocabulary(wrong: Any) -> None:
    with pytest.raises(ConversionError, match=r"generation_config.json has eos_token_id"):
        stops(eos_token_id=wrong)


@pytest.mark.parametrize("wrong", [5, {"a": 1}, [1], [""]])
def test_stop_strings_that_are_none(wrong: Any) -> None:
    with pytest.raises(ConversionError, match="stop_strings"):
        stops(eos_token_id=1, stop_strings=wrong)


def test_a_template_that_is_no_template() -> None:
    with pytest.raises(ConversionError, match="no valid Jinja"):
        stops("{% for %}")


def test_a_model_without_any_end() -> None:
    """llama.cpp would end answers at token 11, which is a comma in GPT-2's vocabulary."""
    with pytest.raises(ConversionError, match=r"no end-of-sequence id: give one in generation_config\.json"):
        stop_metadata(checkpoint(), Vocabulary("gpt2", "gpt-2", ["a"], [1]), [])


def test_an_end_that_llama_cpp_knows_serves_where_none_is_declared() -> None:
    plain = Vocabulary("gpt2", "gpt-2", ["a", "<|im_end|>", "<|endoftext|>"], [1, 3, 3])
    assert stop_metadata(checkpoint(), plain, []) == {EOS: 2}
    assert stop_metadata(checkpoint(chat_templates={"default": CHATML}), plain, []) == {EOS: 1}


@pytest.mark.parametrize(
    ("config", "template", "expected"),
    [({}, "", {BOS: 1}), ({"bos_token_id": 4}, "", {BOS: 4}), ({"bos_token_id": 4}, "{{ bos_token }}", {})],
)
def test_a_tokenizer_without_bos(config: dict[str, Any], template: str, expected: dict[str, int]) -> None:
    """llama.cpp would take token 11 for it; a template that writes bos must get nothing."""
    notes: list[str] = []
    parts = checkpoint(config=config, chat_templates={"default": template})
    without = Vocabulary("gpt2", "gpt-2", TOKENS, [int(kind) for kind in TYPES], special={"eos": 1})
    assert start_metadata(parts, without, {EOS: 1}, notes) == expected
    assert bool(notes) is not bool(expected)
    assert start_metadata(parts, vocabulary(), {EOS: 1}, []) == {}


def test_names_and_sizes(tmp_path: Path) -> None:
    plans = [
        TensorPlan("a", (1000, 1350), constant=lambda: np.zeros(1)),
        TensorPlan("token_embd.weight", (1000, 2700), sources=(object(),)),  # pyright: ignore[reportArgumentType]  only counted
    ]
    card = "---\nlicense: apache-2.0\nlanguage: [en, de]\ntags: [chat]\nbase_model: acme/base-7b\n---\n# Hi\n"
    folder = tmp_path / "smol-llama-v2-135M"
    folder.mkdir()
    (folder / "README.md").write_text(card)
    values = general_metadata(checkpoint(path=folder), "llama", plans)
    assert values == {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "Smol Llama v2 135M",
        "general.size_label": "2.7M",  # what was made here does not count
        "general.license": "apache-2.0",
        "general.languages": ["en", "de"],
        "general.tags": ["chat"],
        "general.base_model.count": 1,
        "general.base_model.0.name": "Base 7b",
        "general.base_model.0.organization": "Acme",
        "general.base_model.0.repo_url": "https://huggingface.co/acme/base-7b",
    }


@pytest.mark.parametrize(
    ("count", "label"),
    [(134_515_008, "135M"), (1_100_000_000, "1.1B"), (3_080_000_000, "3.1B"), (70_600_000_000, "71B"), (27_000, "27K")],
)
def test_size_labels(count: int, label: str) -> None:
    assert size_label(count) == label


def test_sampling_defaults() -> None:
    notes: list[str] = []
    generation = {"temperature": 0.6, "top_k": 20, "repetition_penalty": 1, "top_p": "x", "min_p": None}
    values = sampling_metadata(generation, notes)
    assert notes == []
    assert values == {
        "general.sampling.temp": np.float32(0.6),
        "general.sampling.top_k": 20,
        "general.sampling.penalty_repeat": 1,
    }
    assert np.asarray(values["general.sampling.top_k"]).dtype == np.int32


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("top_k", value) for value in (1e20, 10**400, 2.5, float("nan"), float("inf"))],
        *[("temperature", value) for value in (1e39, 10**400, float("nan"), float("-inf"))],
    ],
)
def test_a_sampling_default_that_does_not_fit_is_left_out(name: str, value: float) -> None:
    notes: list[str] = []
    assert sampling_metadata({name: value}, notes) == {}
    assert f"generation_config.json has {name} = " in notes[0]


def test_templates_of_names_that_become_one() -> None:
    with pytest.raises(ConversionError, match="'tool-use' and 'tool_use' are both 'tool_use'"):
        template_metadata({"tool-use": "A", "tool_use": "B"})


def test_the_proof_looks_for_a_template_under_the_name_it_gets() -> None:
    parts = checkpoint(chat_templates={"tool-use": "{{ tools }}"})
    assert checkpoint_source(parts, ModelPlan("llama", {}, [])).chat_templates == {"tool_use": "{{ tools }}"}


def test_every_template_is_compiled() -> None:
    parts = checkpoint(chat_templates={"default": CHATML, "tool-use": "{% for %}"})
    with pytest.raises(ConversionError, match="'tool-use' is no valid Jinja"):
        stop_metadata(parts, vocabulary(), [])


def test_named_templates() -> None:
    assert template_metadata({"default": "D", "tool use": "T"}) == {
        "tokenizer.chat_template": "D",
        "tokenizer.chat_template.tool_use": "T",
        "tokenizer.chat_templates": ["tool_use"],
    }
    assert template_metadata({}) == {}
