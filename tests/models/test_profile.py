"""The profile: what is declared, what is derived, and what is said of a model that is not in order."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapster.runtime.errors import ConfigError, ModelError
from tapster.runtime.profile import ModelProfile, load_profile

WriteGGUF = Callable[..., Path]
NO_TENSORS = "no tensors: this is a vocabulary only and cannot be run"


def test_the_demo_model(demo_model: Path) -> None:
    profile = load_profile(demo_model)
    assert profile.name == "SmolLM2-135M-Instruct.Q4_1"
    assert (profile.format, profile.architecture, profile.file_type) == ("gguf", "llama", "Q4_1")
    assert (profile.context_length, profile.parameters) == (8192, 134_515_008)
    assert profile.file_bytes == demo_model.stat().st_size
    assert (profile.bos_id, profile.bos_token, profile.add_bos) == (1, "<|im_start|>", False)
    assert (profile.eos_id, profile.eos_token, profile.eog_ids) == (2, "<|im_end|>", (2,))
    assert list(profile.chat_templates) == ["default"]
    assert profile.end_of_turn == "<|im_end|>"
    assert (profile.stop_strings, profile.reasoning, profile.tool_call, profile.sampling) == ((), None, None, {})
    assert profile.problems == ()


def test_a_model_that_declares_everything(write_gguf: WriteGGUF) -> None:
    source = "{% for m in messages %}<think>x</think>{{ m.content }}<|im_end|>{% endfor %}<tool_call>{}</tool_call>"
    path = write_gguf(
        "Odd.Name-Q8_0.gguf",
        {
            "general.name": "Run 17 Ep2",
            "general.file_type": 7,
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.eot_token_id": 4,
            "tokenizer.ggml.eom_token_id": 5,
            "tokenizer.ggml.add_bos_token": True,
            "tokenizer.chat_template": source,
            "tokenizer.chat_template.tool_use": "{{ tools }}",
            "tokenizer.chat_templates": ["tool_use"],
            "tapster.stop_strings": ["<|end|>", "\nUser:"],
            "general.sampling.temp": 0.95,
            "general.sampling.top_k": 20,
            "general.sampling.penalty_repeat": 1.05,
        },
    )
    profile = load_profile(path)
    assert (profile.name, profile.file_type) == ("Odd.Name-Q8_0", "Q8_0")
    assert (profile.eog_ids, profile.eos_token, profile.add_bos) == ((2, 4, 5), "</s>", True)
    assert profile.chat_templates == {"default": source, "tool_use": "{{ tools }}"}
    assert profile.end_of_turn == "<|im_end|>"
    assert profile.reasoning == ("<think>", "</think>")
    assert profile.tool_call == ("<tool_call>", "</tool_call>")
    assert profile.stop_strings == ("<|end|>", "\nUser:")
    assert profile.sampling == {"temperature": 0.95, "top_k": 20, "repeat_penalty": 1.05}
    assert profile.problems == ()
    assert profile.sources == {
        "name": "file name",
        "parameters": "tensor shapes",
        "architecture": "metadata key general.architecture",
        "context_length": "metadata key llama.context_length",
        "file_type": "metadata key general.file_type",
        "bos_id": "metadata key tokenizer.ggml.bos_token_id",
        "eos_id": "metadata key tokenizer.ggml.eos_token_id",
        "add_bos": "metadata key tokenizer.ggml.add_bos_token",
        "eog_ids": "metadata key tokenizer.ggml.eos_token_id, tokenizer.ggml.eot_token_id, tokenizer.ggml.eom_token_id",
        "chat_templates": "metadata key tokenizer.chat_template, tokenizer.chat_template.tool_use",
        "stop_strings": "metadata key tapster.stop_strings",
        "sampling": "metadata keys general.sampling.*",
        "end_of_turn": "derived from the chat template",
        "reasoning": "derived from the chat template",
        "tool_call": "derived from the chat template",
    }


def test_a_file_type_that_is_not_declared_is_that_of_most_bytes(write_gguf: WriteGGUF) -> None:
    tensors = {"small": np.zeros(32, np.float32), "large": np.zeros((32, 32), np.float16)}
    profile = load_profile(write_gguf(tensors=tensors))
    assert (profile.file_type, profile.sources["file_type"]) == ("F16", "tensor types")


TEMPLATE, CONTEXT, SAMPLING = "tokenizer.chat_template", "llama.context_length", "general.sampling."
EOS, BOS, TOKENS = "tokenizer.ggml.eos_token_id", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.tokens"
UNRENDERED = "one plain question cannot be rendered: the chat template "
PROBLEMS = [
    (TEMPLATE, None, "no chat template: choose one with --chat-template (alpaca, "),
    (TEMPLATE, 5, f"the metadata key {TEMPLATE} is 5, not str: ignored"),
    (TEMPLATE, "a\n{% if", "chat template 'default' is no valid Jinja at line 2"),
    (TEMPLATE, "{{ raise_exception('never') }}", f"{UNRENDERED}refuses these messages: never"),
    (TEMPLATE, "{{ 1 / 0 }}", f"{UNRENDERED}fails on these messages: division by zero"),
    (TEMPLATE, "{{ messages[0].content }}", "the chat template shows no end of turn"),
    (EOS, None, f"no end-of-sequence token ({EOS}): llama.cpp guesses one"),
    (EOS, 8, "the eos token has id 8, outside the vocabulary of 8: ignored"),
    (BOS, -1, "the bos token has id -1, outside the vocabulary of 8: ignored"),
    (CONTEXT, None, f"no context length ({CONTEXT}): llama.cpp will refuse it"),
    (CONTEXT, "512", f"the metadata key {CONTEXT} is '512', not int: ignored"),
    (CONTEXT, [512], f"the metadata key {CONTEXT} is an array, not int: ignored"),
    (TOKENS, None, f"no vocabulary ({TOKENS}): only token ids can go in and out"),
    (TOKENS, ["a", "b"], "the vocabulary has 2 tokens but the embedding (token_embd.weight) 8 rows: "),
    ("tapster.stop_strings", [1, 2], "the metadata key tapster.stop_strings is no list of strings: ignored"),
    ("tapster.stop_strings", "x", "the metadata key tapster.stop_strings is no list of strings: ignored"),
    (f"{SAMPLING}top_p", 7.0, f"{SAMPLING}top_p is 7.0, top_p must be between 0 and 1, not 7.0: ignored"),
    (f"{SAMPLING}temp", "hot", f"the metadata key {SAMPLING}temp is 'hot', could not convert"),
    (f"{SAMPLING}temp", [0.5], f"the metadata key {SAMPLING}temp is an array, "),
    (f"{SAMPLING}mirostat", 2, f"{SAMPLING}mirostat is 2, which tapster does not have: ignored"),
    ("general.type", "adapter", "this is a LoRA adapter, which goes with a model and is none itself"),
]


@pytest.mark.parametrize(("key", "value", "expected"), PROBLEMS)
def test_problems(key: str, value: object, expected: str, write_gguf: WriteGGUF) -> None:
    profile = load_profile(write_gguf(metadata={key: value}))
    assert any(expected in problem for problem in profile.problems), profile.problems
    assert not any("\n" in problem for problem in profile.problems)


def test_a_problem_is_one_line_whatever_the_file_says(write_gguf: WriteGGUF) -> None:
    profile = load_profile(write_gguf(metadata={"general.architecture": "lla\nma"}))
    assert profile.problems == ("no context length (lla ma.context_length): llama.cpp will refuse it",)


def test_a_model_in_order_has_no_problems(write_gguf: WriteGGUF) -> None:
    assert load_profile(write_gguf()).problems == ()


def test_only_a_vocabulary(write_gguf: WriteGGUF) -> None:
    assert load_profile(write_gguf(tensors={})).problems == (NO_TENSORS,)


def chat(end: str) -> dict[str, Any]:
    source = "{% for m in messages %}[{{ m.role }}] {{ m.content }}END\n{% endfor %}"
    return {TEMPLATE: source.replace("END", end)}


def test_an_end_of_turn_in_several_tokens(write_gguf: WriteGGUF) -> None:
    profile = load_profile(write_gguf(metadata=chat("<|end|>")))
    assert profile.end_of_turn == "<|end|>"
    (problem,) = profile.problems
    assert problem.startswith("the end of turn '<|end|>' is not a single token: tapster stops at its text")


def test_an_end_of_turn_that_is_not_declared(write_gguf: WriteGGUF) -> None:
    (problem,) = load_profile(write_gguf(metadata=chat("<|stop|>"))).problems
    assert problem.startswith("the end of turn '<|stop|>' is a token not declared as end of generation")


def test_an_end_of_turn_that_llama_cpp_knows_by_name(write_gguf: WriteGGUF) -> None:
    metadata = {**chat("<|im_end|>"), "tokenizer.ggml.eos_token_id": 2}
    profile = load_profile(write_gguf(metadata=metadata))
    assert (profile.end_of_turn, profile.eog_ids, profile.problems) == ("<|im_end|>", (2,), ())


@pytest.mark.parametrize(
    ("stored", "expected"), [({"top_k": -1}, {"top_k": 0}), ({"penalty_last_n": 128}, {"penalty_last_n": 128})]
)
def test_sampling_defaults_take_our_names_and_meanings(
    stored: dict[str, int], expected: dict[str, int], write_gguf: WriteGGUF
) -> None:
    profile = load_profile(write_gguf(metadata={f"general.sampling.{key}": value for key, value in stored.items()}))
    assert (profile.sampling, profile.problems) == (expected, ())


def test_a_built_in_template_replaces_those_of_the_model(write_gguf: WriteGGUF) -> None:
    path = write_gguf(metadata={"tokenizer.chat_template.tool_use": "{{ tools }}"})
    profile = load_profile(path, chat_template="kodalite")
    assert list(profile.chat_templates) == ["default"]
    assert profile.end_of_turn == "<|end|>"
    assert profile.sources["chat_templates"] == "built-in template kodalite"


def test_a_template_file(write_gguf: WriteGGUF, tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{% for m in messages %}{{ m.content }}</s>é{% endfor %}", "utf-8")
    profile = load_profile(write_gguf(), chat_template=str(tmp_path / "mine.jinja"))
    assert "é" in profile.chat_templates["default"]
    assert profile.sources["chat_templates"] == f"file {tmp_path / 'mine.jinja'}"


def test_templates_that_cannot_be_had(write_gguf: WriteGGUF, tmp_path: Path) -> None:
    path = write_gguf()
    (tmp_path / "latin.jinja").write_bytes(b"\xe9")
    (tmp_path / "broken.jinja").write_text("{% for")
    for choice, kind, message in (
        ("chatlm", ConfigError, "did you mean chatml"),
        (str(tmp_path / "absent.jinja"), ConfigError, r"cannot read the chat template .*absent.jinja: No such file"),
        (str(tmp_path / "latin.jinja"), ConfigError, "is no UTF-8 text"),
        (str(tmp_path / "broken.jinja"), ModelError, r"broken.jinja' is no valid Jinja at line 1"),
    ):
        with pytest.raises(kind, match=message):
            load_profile(path, chat_template=choice)


def split_model(write_gguf: WriteGGUF) -> list[Path]:
    tensors = {
        "token_embd.weight": np.zeros((8, 32), np.float32),
        "a": np.zeros(32, np.float32),
        "b": np.zeros(3, np.int8),
    }
    path = write_gguf(tensors=tensors, split_max_tensors=1)
    return [path.with_name(f"model-0000{number}-of-00003.gguf") for number in (1, 2, 3)]


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^no such file: .*absent.gguf$"):
        load_profile(tmp_path / "absent.gguf")
    with pytest.raises(ModelError, match=r"has no config.json, which says what the model is: download it again$"):
        load_profile(tmp_path)


def test_a_model_in_parts(write_gguf: WriteGGUF) -> None:
    parts = split_model(write_gguf)
    profile = load_profile(parts[1])
    assert (profile.name, profile.path) == ("model", parts[0])
    assert profile.parameters == 8 * 32 + 32 + 3
    assert profile.file_bytes == sum(part.stat().st_size for part in parts)
    assert profile.problems == ()


def test_a_model_in_parts_of_which_one_is_missing_or_another(write_gguf: WriteGGUF) -> None:
    first, second, third = split_model(write_gguf)
    second.rename(second.with_name("kept"))
    with pytest.raises(ModelError, match=r"is incomplete: model-00002-of-00003.gguf of 3 parts missing"):
        load_profile(first)
    second.write_bytes(third.read_bytes())
    with pytest.raises(ModelError, match=r"says it is part 2 \(from 0\) of 3, but by its name it is 1 of 3"):
        load_profile(first)
    with pytest.raises(ModelError, match=r"says it is part 0 \(from 0\) of 3, but by its name it is 0 of 1"):
        load_profile(first.rename(first.with_name("renamed.gguf")))


@pytest.mark.parametrize(
    ("name", "architecture", "end_of_turn"),
    [
        ("gpt-2", "gpt2", None),
        ("gpt-neox", "gptneox", None),
        ("llama-bpe", "llama", None),
        ("qwen2", "qwen2", "<|im_end|>"),
    ],
)
def test_real_vocabularies(name: str, architecture: str, end_of_turn: str | None) -> None:
    folder = os.environ.get("TAPSTER_DATA") or Path(__file__).parents[3] / "shared" / "data"
    path = Path(folder) / "vocab" / f"ggml-vocab-{name}.gguf"
    if not path.is_file():
        pytest.skip(f"no {path.name}: set TAPSTER_DATA to a folder that has vocab/{path.name}")
    profile = load_profile(path)
    assert (profile.architecture, profile.end_of_turn) == (architecture, end_of_turn)
    template = () if end_of_turn else (profile.problems[-1],)
    assert profile.problems == (NO_TENSORS, *template)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_mutated_model_has_a_profile_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, small_model: bytes, data: st.DataObject
) -> None:
    content = bytearray(small_model)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(24, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "mutated-model.gguf"
    path.write_bytes(content)
    found = profile_or_refusal(path)
    lines = [found] if isinstance(found, str) else found.problems
    assert not any("\n" in line for line in lines)


def profile_or_refusal(path: Path) -> ModelProfile | str:
    try:
        return load_profile(path)
    except ModelError as error:
        return str(error)
