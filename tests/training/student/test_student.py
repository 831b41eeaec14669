"""Students that are made, saved and opened again; and that what comes out stops where it should."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import full_disk
from small_tokenizer import small_tokenizer

from tapster.runtime.chat.builtin import builtin_source
from tapster.runtime.errors import ConfigError, ModelError, TrainingError
from tapster.runtime.profile import load_profile
from tapster.training.recipe.schema import Data, Lora, Objective, Recipe, Stage, Student
from tapster.training.student.lora import merged, with_lora
from tapster.training.student.open import open_student, read_model
from tapster.training.student.save import save_student
from tapster.training.student.scratch import scratch_model
from tapster.training.student.tokenizer import gguf_vocabulary, make_tokenizer, trained, wrapped

TINY: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def recipe(**student: Any) -> Recipe:
    stage = Stage(name="s", steps=1, data=Data(train=["sample:prose"]), objective=[Objective(term="cross_entropy")])
    return Recipe(name="x", title="x", student=Student(**student), stages=[stage])


def no_model(name: str) -> Path:
    raise ModelError(f"no model {name}")


@pytest.fixture(scope="module")
def tiny() -> Any:
    return scratch_model(TINY | {"tie_word_embeddings": True}, small_tokenizer(), seed=1)


def test_a_student_from_scratch_is_the_same_when_the_run_goes_on(tmp_path: Path) -> None:
    wanted = recipe(scratch=TINY, tokenizer="train:600", chat_template="kodalite", stop_strings=["<|end|>"])
    first = open_student(wanted, no_model, tmp_path)
    torch.manual_seed(99)
    second = open_student(wanted, no_model, tmp_path)
    assert first.stop_strings == ["<|end|>"]
    assert first.chat_template == builtin_source("kodalite")
    assert first.tokenizer.get_vocab() == second.tokenizer.get_vocab()
    assert len(first.tokenizer) == 600
    for one, other in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert first.model.dtype == torch.float32


@pytest.mark.parametrize("around", ["Yes.\n{}\n", "{}", "a{}b", "<{}>", " {} \n\n"])
def test_the_end_is_five_tokens_whatever_stands_around_it(around: str) -> None:
    texts = ["if a<|b and c|>d then <|end|> <|end|> " * 50, "user assistant end " * 20, "the quick brown fox " * 30]
    tokenizer: Any = wrapped(trained(texts, 290))
    tokens = tokenizer.tokenize(around.format("<|end|>"))
    text = "".join(tokens)
    assert "<|end|>" in text
    assert not any("<|" in token or "|>" in token for token in tokens)
    at = next(idx for idx in range(len(tokens)) if tokens[idx : idx + 3] == ["|", "end", "|"])
    assert tokens[at - 1].endswith("<")
    assert tokens[at + 3].startswith(">")


def test_a_trained_tokenizer_gives_every_text_back() -> None:
    tokenizer = small_tokenizer(None)
    for text in ("Größe — 東京 🙂\n\n\tx  y", "<|user|>\nHi", " leading and trailing "):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_gpt2s_vocabulary_out_of_a_gguf_file(shared_data: Path) -> None:
    path = shared_data / "vocab" / "ggml-vocab-gpt-2.gguf"
    tokenizer: Any = wrapped(*gguf_vocabulary(path))
    assert len(tokenizer) == 50257
    assert tokenizer("<|end|>")["input_ids"] == [27, 91, 437, 91, 29]
    assert tokenizer.eos_token_id == 50256
    cases = path.with_name(path.name + ".inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    expected = path.with_name(path.name + ".out").read_text().split("\n")
    for case, ids in zip(cases, expected, strict=False):
        assert tokenizer(case)["input_ids"] == [int(number) for number in ids.split()], case
    with pytest.raises(ModelError, match="only GPT-2's can be taken from a GGUF file"):
        gguf_vocabulary(path.with_name("ggml-vocab-llama-bpe.gguf"))


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (
            {"scratch": TINY | {"model_type": "lama"}},
            "model_type 'lama' is no model type of transformers: did you mean l",
        ),
        (
            {"scratch": TINY | {"hiden_size": 8}},
            "student.scratch.hiden_size is no setting of llama: did you mean hidden_size",
        ),
        ({"scratch": TINY | {"vocab_size": 100}}, "vocab_size 100 is less than the tokenizer's 600 tokens"),
        ({"scratch": TINY, "tokenizer": "train:many"}, "write train:N with the number of tokens"),
        ({"scratch": TINY, "tokenizer": "train:100"}, "too small"),
        ({"scratch": TINY, "tokenizer": "train:900000"}, "the training text has only"),
        ({"scratch": TINY, "chat_template": "kodalight"}, "did you mean kodalite"),
        ({"scratch": TINY, "chat_template": "{% if %}"}, "is no valid Jinja"),
    ],
)
def test_a_student_that_makes_no_sense(student: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        open_student(recipe(**{"tokenizer": "train:600", **student}), no_model, tmp_path)
    assert not (tmp_path / "student").exists()


def test_what_is_no_model(tmp_path: Path, tiny: Any) -> None:
    with pytest.raises(ModelError, match="no model nowhere"):
        open_student(recipe(model="nowhere"), no_model, tmp_path)
    with pytest.raises(ModelError, match="no model nowhere"):
        make_tokenizer("nowhere", texts=lambda: [], resolve_model=no_model)
    folder = save_student(tiny, small_tokenizer(), tmp_path / "m", dtype="float32")
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights, first model.norm.weight"):
        read_model(folder, torch.float32)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"cannot open the model .*/m: "):
        read_model(folder, torch.float32)


@pytest.mark.parametrize("template", ["kodalite", "chatml", "memphis"])
def test_a_saved_folder_stops_where_it_should(template: str, tiny: Any, tmp_path: Path) -> None:
    tokenizer = small_tokenizer(template)
    tiny.config.use_cache = False  # as a stage leaves it
    before = {name: weight.clone() for name, weight in tiny.state_dict().items()}
    folder = save_student(tiny, tokenizer, tmp_path / "model", dtype="bfloat16", chat_template=tokenizer.chat_template)
    stops = json.loads((folder / "generation_config.json").read_text()).get("stop_strings", [])
    assert stops == {"kodalite": ["<|end|>"], "chatml": [], "memphis": ["### User:"]}[template]
    profile = load_profile(folder)
    assert tuple(stops) == profile.stop_strings
    assert tokenizer.eos_token_id in profile.eog_ids
    again = read_model(folder, torch.float32)
    for name, weight in before.items():
        assert torch.equal(again.state_dict()[name], weight.bfloat16().float())
        assert torch.equal(tiny.state_dict()[name], weight), "the model that was saved is still what it was"
    config = json.loads((folder / "config.json").read_text())
    assert (config["dtype"], config["use_cache"]) == ("bfloat16", True)
    assert json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"] == 256
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1, "whoever reads the config reads the weights"
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys(), "a tied head is saved once"  # noqa: SIM118  no dictionary


def test_generate_stops_at_plain_text(tmp_path: Path, tiny: Any) -> None:
    """A model whose every answer is the marker: plain transformers must stop behind it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor

    tokenizer = small_tokenizer("kodalite")
    folder = save_student(tiny, tokenizer, tmp_path / "m", dtype="float32", chat_template=tokenizer.chat_template)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    opened = AutoTokenizer.from_pretrained(folder)
    script = opened("Yes.\n<|end|>\n<|user|>\nand on and on")["input_ids"]

    class Writes(LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            scores[:] = -1e9
            scores[:, script[input_ids.shape[1] - size]] = 0
            return scores

    prompt = opened.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    size = prompt["input_ids"].shape[1]
    found = model.generate(**prompt, max_new_tokens=len(script), logits_processor=[Writes()], tokenizer=opened)
    assert opened.decode(found[0, size:]) == "Yes.\n<|end|>"


@pytest.mark.parametrize("largest", [0, 2_000, 200_000])
def test_a_full_disk_leaves_the_old_folder(tmp_path: Path, tiny: Any, largest: int) -> None:
    """Whoever finds out: Python writing the config, safetensors, or, with a tokenizer larger than the weights, it."""
    tokenizer = small_tokenizer()
    if largest == 200_000:
        tokenizer.add_tokens([f"<{number:030}>" for number in range(2_000)])
    folder = save_student(tiny, tokenizer, tmp_path / "m", dtype="float32")
    before = {path.name: path.stat().st_size for path in folder.iterdir()}
    with full_disk(largest), pytest.raises(TrainingError, match=r"cannot save the model to .*too large.*; make room"):
        save_student(tiny, tokenizer, folder, dtype="float32")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == before


def test_lora_begins_as_nothing_and_is_merged_exactly() -> None:
    model = scratch_model(TINY, small_tokenizer(), seed=2).eval()
    ids = torch.arange(12)[None]
    with torch.no_grad():
        before = model(ids).logits
        adapted = with_lora(model, Lora(rank=4, alpha=8.0), seed=0).eval()
        assert torch.equal(adapted(ids).logits, before)
        names = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
        assert names
        assert all("lora_" in name for name in names)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        after = adapted(ids).logits
        whole = merged(adapted)
        torch.testing.assert_close(whole(ids).logits, after, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(after, before, atol=1e-2)
    assert not any("lora" in name for name in whole.state_dict())
    with pytest.raises(ConfigError, match=r"lora.targets \['qq'\] name no linear layer; the model has .*q_proj"):
        with_lora(whole, Lora(targets=["qq"]), seed=0)


def test_lora_begins_the_same_whatever_was_drawn_before() -> None:
    """A run that goes on between two stages has drawn nothing yet."""

    def drawn(before: int, seed: int) -> torch.Tensor:
        model = scratch_model(TINY, small_tokenizer(), seed=2)
        torch.manual_seed(before)
        state = torch.random.get_rng_state()
        adapted = with_lora(model, Lora(rank=4), seed=seed)
        assert torch.equal(torch.random.get_rng_state(), state), "nor does it take from what others draw"
        return torch.cat([weight.flatten() for name, weight in adapted.named_parameters() if "lora_A" in name])

    assert torch.equal(drawn(1, seed=5), drawn(2, seed=5))
    assert not torch.equal(drawn(1, seed=5), drawn(1, seed=6))
