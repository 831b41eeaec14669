"""The profile of models that are folders: what their files declare, and every way in which they can be wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_folders import CONFIG, QUANTIZATION, edit, write_folder, write_mlx, write_onnx, write_onnx_folder
from tiny_tokenizer import CHATML

from tapster.runtime.errors import ModelError
from tapster.runtime.model_folder import folder_format, folder_formats, folder_name
from tapster.runtime.profile import load_profile

GENERATION = "generation_config__json"
TOKENIZER = "tokenizer_config__json"


def problems(folder: Path) -> str:
    return "\n".join(load_profile(folder).problems)


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_profile(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_checkpoint_in_order(tmp_path: Path) -> None:
    profile = load_profile(write_folder(tmp_path / "Small-1M"))
    assert (profile.name, profile.format, profile.path) == ("Small-1M", "hf", tmp_path / "Small-1M")
    assert (profile.architecture, profile.context_length, profile.file_type) == ("llama", 512, "BF16")
    assert (profile.parameters, profile.file_bytes) == (1284, (tmp_path / "Small-1M/model.safetensors").stat().st_size)
    assert (profile.bos_id, profile.bos_token, profile.add_bos) == (0, "<|endoftext|>", False)
    assert (profile.eos_id, profile.eos_token, profile.eog_ids) == (2, "<|im_end|>", (2,))
    assert (profile.chat_templates, profile.end_of_turn) == ({"default": CHATML}, "<|im_end|>")
    assert (profile.stop_strings, profile.sampling, profile.pooling, profile.problems) == ((), {}, None, ())
    assert profile.sources == {
        "name": "folder name",
        "parameters": "tensor shapes",
        "file_type": "tensor types",
        "architecture": "config.json: model_type",
        "context_length": "config.json: max_position_embeddings",
        "bos_id": "tokenizer_config.json: bos_token",
        "eos_id": "tokenizer_config.json: eos_token",
        "eog_ids": "tokenizer_config.json: eos_token, generation_config.json: eos_token_id, config.json: eos_token_id",
        "add_bos": "tokenizer_config.json: add_bos_token",
        "chat_templates": "chat_template.jinja",
        "end_of_turn": "derived from the chat template",
    }


def test_everything_that_generation_config_declares(tmp_path: Path) -> None:
    declared = {
        "eos_token_id": [1, 2, 1],
        "stop_strings": ["<|end|>", "\nUser:", "<|end|>"],
        "do_sample": True,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.9,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "max_new_tokens": 100,
    }
    profile = load_profile(write_folder(tmp_path, **{GENERATION: declared}))
    assert profile.eog_ids == (2, 1)
    assert profile.stop_strings == ("<|end|>", "\nUser:")
    expected = {"temperature": 0.6, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "repeat_penalty": 1.1}
    assert profile.sampling == expected
    assert profile.sources["sampling"] == "generation_config.json"
    assert profile.sources["stop_strings"] == "generation_config.json: stop_strings"
    assert profile.problems == ()


def test_a_greedy_model_has_no_sampling_defaults(tmp_path: Path) -> None:
    profile = load_profile(write_folder(tmp_path, **{GENERATION: {"do_sample": False, "temperature": 0.6}}))
    assert profile.sampling == {}


def test_a_stop_string_alone(tmp_path: Path) -> None:
    assert load_profile(write_folder(tmp_path, **{GENERATION: {"stop_strings": "###"}})).stop_strings == ("###",)


ENDING = "{% for m in messages %}[{{ m.role }}] {{ m.content }}END\n{% endfor %}"
PROBLEMS: list[tuple[dict[str, Any], str]] = [
    ({GENERATION: {}}, "no generation_config.json"),
    ({GENERATION: {"stop_strings": [1]}}, "stop_strings is no text and no list of texts: ignored"),
    ({GENERATION: {"stop_strings": [""]}}, "stop_strings is no text and no list of texts: ignored"),
    ({GENERATION: {"eos_token_id": 999}}, "eos_token_id has 999, which is no token of the vocabulary: ignored"),
    ({GENERATION: {"eos_token_id": ["</s>"]}}, "eos_token_id has '</s>', which is no token"),
    ({GENERATION: {"top_p": 7}}, "top_p is 7, top_p must be between 0 and 1, not 7.0: ignored"),
    ({GENERATION: {"temperature": "hot"}}, "temperature is 'hot', which is no number: ignored"),
    ({GENERATION: {"top_k": True}}, "top_k is True, which is no number: ignored"),
    ({"config__json": {**CONFIG, "model_type": None}}, "no architecture (config.json: model_type)"),
    ({"config__json": {**CONFIG, "max_position_embeddings": None}}, "no context length (config.json: max_position"),
    ({"config__json": {**CONFIG, "max_position_embeddings": "512"}}, "max_position_embeddings is '512', no number"),
    ({"config__json": {**CONFIG, "vocab_size": 290}}, "tokens and the model rows for 290 (vocab_size)"),
    (
        {"config__json": {**CONFIG, "auto_map": {"AutoModel": "x.M"}}},
        "names code to run (auto_map), which is never run",
    ),
    ({"tokenizer__json": None}, "no tokenizer (tokenizer.json or tokenizer.model): it cannot be run"),
    ({"chat_template__jinja": None}, "no chat template: choose one with --chat-template"),
    ({"chat_template__jinja": "a\n{% if"}, "chat template 'default' is no valid Jinja at line 2"),
    ({"chat_template__jinja": b"\xff"}, "chat_template.jinja is no UTF-8"),
    ({"chat_template__jinja": ENDING.replace("END", "<|end|>")}, "the end of turn '<|end|>' is not a single token"),
    (
        {"chat_template__jinja": ENDING.replace("END", "<|im_start|>")},
        "'<|im_start|>' is a token not declared as end",
    ),
]


@pytest.mark.parametrize(("files", "expected"), PROBLEMS)
def test_problems(files: dict[str, Any], expected: str, tmp_path: Path) -> None:
    found = load_profile(write_folder(tmp_path, **files)).problems
    assert any(expected in problem for problem in found), found
    assert not any("\n" in problem for problem in found)


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"config__json": None}, "has no config.json, which says what the model is: download it again"),
    ({"config__json": "{"}, "config.json is no JSON"),
    ({"config__json": "[]"}, "config.json should hold a JSON object and holds a list"),
    ({GENERATION: "{,}"}, "generation_config.json is no JSON"),
    ({TOKENIZER: "x"}, "tokenizer_config.json is no JSON"),
    ({"tokenizer__json": "{"}, "tokenizer.json is no JSON"),
    ({"tokenizer__json": {"model": {}}}, "tokenizer.json is damaged (KeyError: 'vocab')"),
    ({"tokenizer__json": {"model": {"vocab": {"a": 1 << 40}}}}, "tokenizer.json is damaged (ValueError: 1 tokens have"),
    ({"tokenizer__json": {"model": {"vocab": {"a": -1}}}}, "a token has the id -1"),
    ({"tokenizer__json": {"model": {"vocab": {}}, "added_tokens": [{"id": 1}]}}, "is damaged (KeyError: 'content')"),
    ({"model__safetensors": b""}, "model.safetensors is empty"),
    ({"model__safetensors": b"version https://git-lfs.github.com/spec/v1"}, "is a Git LFS pointer"),
]


@pytest.mark.parametrize(("files", "expected"), REFUSALS)
def test_what_nothing_works_without(files: dict[str, Any], expected: str, tmp_path: Path) -> None:
    assert expected in refusal(write_folder(tmp_path, **files))


def test_weights_cut_at_any_byte_are_refused(tmp_path: Path) -> None:
    path = write_folder(tmp_path) / "model.safetensors"
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert "model.safetensors" in refusal(tmp_path)


def test_shards_and_their_index(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    first, second = (folder / f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    (folder / "model.safetensors").rename(second)
    assert "is incomplete: model-00001-of-00002.safetensors is missing (1 of 2 files)" in refusal(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": second.name}}))
    assert load_profile(folder).parameters == 1284
    index.write_text(json.dumps({"weight_map": {"a": first.name, "b": second.name}}))
    assert f"is incomplete: {first.name} is missing (1 of 2 files)" in refusal(folder)
    index.write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    assert "names '../x.safetensors', which is no file of its folder" in refusal(folder)
    index.write_text(json.dumps({"weight_map": []}))
    assert "has no weight_map" in refusal(folder)


def test_without_weights_there_is_still_a_profile(tmp_path: Path) -> None:
    profile = load_profile(write_folder(tmp_path, model__safetensors=None))
    assert (profile.end_of_turn, profile.parameters) == ("<|im_end|>", 0)
    assert any(problem.startswith("no weights") for problem in profile.problems)


def test_templates_wherever_they_are(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, chat_template__jinja=None)
    edit(folder / "tokenizer_config.json", chat_template=CHATML)
    profile = load_profile(folder)
    assert (profile.chat_templates, profile.end_of_turn) == ({"default": CHATML}, "<|im_end|>")
    assert profile.sources["chat_templates"] == "tokenizer_config.json: chat_template"
    named = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": "{{ tools }}"}]
    edit(folder / "tokenizer_config.json", chat_template=named)
    assert list(load_profile(folder).chat_templates) == ["default", "tool_use"]
    edit(folder / "tokenizer_config.json", chat_template=5)
    assert "is neither a text nor a list of named ones: repair or remove it: left out" in problems(folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/rag.jinja").write_text("{{ documents }}")
    (folder / "chat_template.jinja").write_text(CHATML)
    profile = load_profile(folder)
    assert list(profile.chat_templates) == ["default", "rag"]
    assert profile.sources["chat_templates"] == "chat_template.jinja, additional_chat_templates/rag.jinja"
    assert list(load_profile(folder, chat_template="kodalite").chat_templates) == ["default"]


def test_a_post_processor_says_which_token_begins(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    edit(folder / "tokenizer.json", post_processor=template)
    profile = load_profile(folder)
    assert (profile.bos_id, profile.bos_token, profile.add_bos) == (1, "<|im_start|>", True)
    assert profile.sources["bos_id"] == profile.sources["add_bos"] == "tokenizer.json: post_processor"


def test_a_tokenizer_that_names_no_bos_has_none(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, config__json={**CONFIG, "bos_token_id": 0})
    edit(folder / "tokenizer_config.json", bos_token=None)
    assert (load_profile(folder).bos_id, load_profile(folder).bos_token) == (None, None)
    (folder / "tokenizer_config.json").unlink()
    assert (load_profile(folder).bos_id, load_profile(folder).eos_id) == (0, 2)


def test_settings_of_a_text_model_inside_another(tmp_path: Path) -> None:
    config = {"model_type": "gemma3", "text_config": {"max_position_embeddings": 99, "vocab_size": 400}}
    profile = load_profile(write_folder(tmp_path, config__json=config))
    assert (profile.context_length, profile.architecture) == (99, "gemma3")
    assert profile.sources["context_length"] == "config.json: text_config.max_position_embeddings"


def test_the_name_in_the_hub_s_cache(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "models--org--Name-1B" / "snapshots" / "0123456789abcdef")
    assert load_profile(folder).name == folder_name(folder) == "Name-1B"


def test_an_mlx_folder_counts_the_model_s_parameters(tmp_path: Path) -> None:
    profile = load_profile(write_mlx(tmp_path))
    assert (profile.format, profile.file_type) == ("mlx", "4bit")
    assert profile.parameters == 320 * 64 + 64 * 64 + 64
    assert profile.sources["file_type"] == "config.json: quantization"
    assert profile.problems == ()


def test_mlx_types_by_mode(tmp_path: Path) -> None:
    assert load_profile(write_mlx(tmp_path, quantization={**QUANTIZATION, "mode": "mxfp4"})).file_type == "mxfp4"
    assert "in groups of 0" in refusal(write_mlx(tmp_path, quantization={"group_size": 0, "bits": 4}))


def test_an_mlx_folder_that_is_not_quantized_says_so_in_its_weights(tmp_path: Path) -> None:
    metadata = {"__metadata__": {"format": "mlx"}}
    content = (write_folder(tmp_path) / "model.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    packed = json.dumps({**metadata, **header}).encode()
    data = content[8 + int.from_bytes(content[:8], "little") :]
    (tmp_path / "model.safetensors").write_bytes(len(packed).to_bytes(8, "little") + packed + data)
    profile = load_profile(tmp_path)
    assert (profile.format, profile.file_type, profile.parameters) == ("mlx", "bf16", 1284)


def test_code_in_an_mlx_folder_is_a_problem(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, config__json={**CONFIG, "model_file": "arcee.py"})
    assert folder_format(folder) == "mlx"
    assert "(model_file: 'arcee.py'): it is refused without --trust-remote-code" in problems(folder)


onnx = pytest.importorskip("onnx", reason="the onnx package writes the graphs")


def test_an_onnx_folder(tmp_path: Path) -> None:
    profile = load_profile(write_onnx_folder(tmp_path))
    assert (profile.format, profile.architecture, profile.context_length) == ("onnx", "llama", 256)
    assert profile.parameters == 300 * 16 + 8 * 64 + 16
    assert (profile.file_type, profile.eog_ids) == ("fp16", (2, 0))
    files = ("model.onnx", "model.onnx.data")
    assert profile.file_bytes == sum((tmp_path / name).stat().st_size for name in files)
    assert profile.sources["context_length"] == "genai_config.json: model.context_length"
    assert profile.problems == ()


def test_an_onnx_folder_without_settings_of_genai(tmp_path: Path) -> None:
    folder = write_onnx_folder(tmp_path)
    (folder / "genai_config.json").unlink()
    profile = load_profile(folder)
    assert (profile.format, profile.context_length, profile.eog_ids) == ("onnx", 512, (2,))
    assert any(problem.startswith("no genai_config.json") for problem in profile.problems)


def test_only_the_settings_of_genai(tmp_path: Path) -> None:
    folder = write_onnx_folder(tmp_path, config__json=None, generation_config__json=None)
    edit(folder / "genai_config.json", search={"do_sample": True, "top_p": 0.5, "temperature": 0.7})
    profile = load_profile(folder)
    assert (profile.architecture, profile.eog_ids) == ("llama", (2, 0))
    assert profile.sampling == {"temperature": 0.7, "top_p": 0.5}
    assert profile.sources["sampling"] == "genai_config.json: search"


def test_onnx_files_that_are_not_all_there(tmp_path: Path) -> None:
    data = write_onnx_folder(tmp_path) / "model.onnx.data"
    content = data.read_bytes()
    data.write_bytes(content[:-1])
    size = len(content)
    assert refusal(tmp_path).endswith(
        f"model.onnx.data is truncated: it needs {size:,} bytes and has {size - 1:,}; download or convert it again"
    )
    data.unlink()
    assert "has its weights in model.onnx.data, which is missing: put it into" in refusal(tmp_path)
    (tmp_path / "model.onnx").unlink()
    assert "model.onnx is missing and genai_config.json names it" in refusal(tmp_path)


def test_which_of_several_graphs(tmp_path: Path) -> None:
    folder = write_onnx_folder(tmp_path)
    edit(folder / "genai_config.json", model={"decoder": {"filename": "other.onnx"}})
    assert "other.onnx is missing" in refusal(folder)
    write_onnx(folder, "other.onnx")
    assert load_profile(folder).parameters == 300 * 16 + 8 * 64 + 16
    edit(folder / "genai_config.json", model={"decoder": {"filename": "../other.onnx"}})
    assert "names '../other.onnx', which is no file of its folder" in refusal(folder)
    (folder / "genai_config.json").unlink()
    (folder / "model.onnx").rename(folder / "third.onnx")
    assert "has several ONNX files (other.onnx, third.onnx) and no genai_config.json" in refusal(folder)


def test_data_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = write_onnx_folder(tmp_path) / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b"model.onnx.data", b"../el.onnx.data"))
    assert "has its data in '../el.onnx.data', which is no file of its folder" in refusal(tmp_path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_mutated_graph_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "mutated"
    if not (folder / "whole").is_file():
        content = (write_onnx_folder(folder) / "model.onnx").read_bytes()
        (folder / "whole").write_bytes(content)
    mutated = bytearray((folder / "whole").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    (folder / "model.onnx").write_bytes(mutated)
    try:
        found: Any = load_profile(folder).problems
    except ModelError as error:
        found = [str(error)]
    assert not any("\n" in line for line in found)


def test_formats(tmp_path: Path) -> None:
    assert folder_format(tmp_path) is None
    assert folder_format(tmp_path / "absent") is None
    folder = write_folder(tmp_path / "both")
    assert folder_formats(folder) == ("hf",)
    write_onnx(folder)
    assert folder_formats(folder) == ("hf", "onnx")
    (folder / "genai_config.json").write_text("{}")
    assert folder_formats(folder) == ("onnx", "hf")
    (folder / "config.json").write_text("{")
    assert folder_formats(folder) == ("onnx", "hf")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)
KEYS = {
    "config.json": [
        "model_type",
        "max_position_embeddings",
        "eos_token_id",
        "vocab_size",
        "quantization",
        "text_config",
    ],
    "generation_config.json": ["eos_token_id", "stop_strings", "temperature", "top_k", "do_sample"],
    "tokenizer_config.json": ["bos_token", "eos_token", "added_tokens_decoder", "chat_template", "add_bos_token"],
    "tokenizer.json": ["added_tokens", "model", "post_processor", "decoder", "normalizer"],
}


@settings(max_examples=150, deadline=None)
@given(file=st.sampled_from(list(KEYS)), data=st.data())
def test_any_value_anywhere_gives_a_profile_or_a_refusal(
    file: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-value"
    if not folder.is_dir():
        write_folder(folder)
    path = folder / file
    whole = path.read_text()
    edit(path, **{data.draw(st.sampled_from(KEYS[file])): data.draw(JSON)})
    try:
        lines: Any = load_profile(folder).problems
    except ModelError as error:
        lines = [str(error)]
    finally:
        path.write_text(whole)
    assert not any("\n" in line for line in lines)
