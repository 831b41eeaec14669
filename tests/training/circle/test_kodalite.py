"""A model from random weights, whose answers end in text, through every format that tapster makes and serves.

``<|end|>`` is five tokens here and none of them special, so nothing but the text can stop an answer. That the model has
learnt to write it is asked with ``include_stop_str_in_output``, and token by token.
"""

import importlib.util
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from black_box import Api, Prompt, Reply
from circle_runs import convert_all, records, train_small
from served import serving

from tapster.training.data.sources import SAMPLES

END = "<|end|>"
PIECES = ["<", "|", "end", "|", ">"]
CHECKPOINT = "hf"
TARGETS = ["gguf:Q2_K", "gguf:Q4_K_M", "mlx:4bit", "onnx:int4"]
NEEDS = {"mlx": ("mlx", "mlx_lm"), "onnx": ("onnxruntime", "onnx_ir")}
ROOM = 100
"""Tokens that an answer may have: the longest of the sample and its end need fewer than 60."""


def chats() -> list[tuple[str, str]]:
    """Questions and answers of the sample; the recipe holds some of them out."""
    lines = (Path(SAMPLES) / "chat.jsonl").read_text("utf-8").splitlines()
    pairs = [[message["content"] for message in json.loads(line)["messages"]] for line in lines]
    return [(question, answer) for question, answer in pairs]


def asked(question: str) -> str:
    return f"<|user|>\n{question}\n<|assistant|>\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_small("kodalite", tmp_path_factory.mktemp("kodalite") / "run")


@pytest.fixture(scope="module")
def artifacts(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    have = [target for target in TARGETS if not _missing(target)]
    return convert_all(run / "model", tmp_path_factory.mktemp("artifacts"), *have)


@pytest.fixture(scope="module", params=[*TARGETS, CHECKPOINT])
def api(request: pytest.FixtureRequest, run: Path, artifacts: dict[str, dict[str, Any]]) -> Iterator[Api]:
    """A server of one form of the model, and a client of it."""
    if missing := _missing(request.param):
        pytest.skip(f"{missing} is not installed: pip install 'tapster[{request.param.partition(':')[0]}]'")
    path = run / "model" if request.param == CHECKPOINT else artifacts[request.param]["path"]
    with serving(str(path)) as url, Api(url) as client:
        yield client


@pytest.fixture(scope="module")
def learnt(api: Api) -> list[tuple[str, str]]:
    """Some questions whose answers it has learnt, surely enough that the shape of a batch decides nothing."""
    found = []
    for question, answer in chats():
        reply = api.whole(Prompt(question), max_tokens=ROOM, logprobs=True, top_logprobs=2)
        if reply.text.strip() == answer and _is_sure(reply):
            found.append((question, answer))
        if len(found) == 4:
            return found
    return pytest.fail(f"it is sure of {len(found)} of {len(chats())} answers")


def _is_sure(reply: Reply) -> bool:
    steps = [token["top_logprobs"] for token in reply.logprobs[0]["content"]]
    return all(first["logprob"] - second["logprob"] > 1.0 for first, second in steps)


def _missing(target: str) -> str | None:
    names = NEEDS.get(target.partition(":")[0], ())
    return next((name for name in names if importlib.util.find_spec(name) is None), None)


def test_it_learnt_text_and_then_chats(run: Path) -> None:
    for stage, share in (("pretrain", 0.7), ("chat", 0.9)):
        first, *_, last = records(run, stage, "eval")
        assert last["loss"] < share * first["loss"]


def test_the_end_is_five_tokens_of_plain_text(run: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert tokenizer.tokenize(f"Yes.\n{END}")[-5:] == PIECES
    assert tokenizer.tokenize(END) == PIECES
    assert not set(PIECES) & {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}


def test_nothing_is_left_of_the_updates_that_were_merged(run: Path) -> None:
    from safetensors import safe_open

    with safe_open(run / "model" / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert "model.layers.0.self_attn.q_proj.weight" in names
    assert not [name for name in names if "lora" in name or "base_layer" in name]
    before, after = (_weight(run / "stages" / stage / "model") for stage in ("01-pretrain", "02-chat"))
    assert (after - before).norm() > 0.01 * before.norm()


def _weight(folder: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"].float()


def test_plain_transformers_stops(run: Path) -> None:
    """With the folder's own generation_config and nothing else."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    model: Any = AutoModelForCausalLM.from_pretrained(run / "model")
    inputs = tokenizer(asked(chats()[0][0]), return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=ROOM, do_sample=False, tokenizer=tokenizer)
    text = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
    assert text.endswith(f"\n{END}")
    assert text.count(END) == 1


def test_answers_end_by_themselves(api: Api) -> None:
    """Also those to questions that were held out: it knows how an answer ends, right or wrong."""
    pairs = chats()[::4]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda pair: api.whole(Prompt(pair[0]), max_tokens=ROOM), pairs))
    assert sum(map(ended, replies)) >= 0.95 * len(replies), [reply.text for reply in replies if not ended(reply)]
    assert not [reply.text for reply in replies if END in reply.text]
    right = sum(reply.text.strip() == answer for reply, (_, answer) in zip(replies, pairs, strict=True))
    assert right > len(replies) / 2, "it has learnt the end, and not the chats"


def test_an_answer_is_the_same_streamed(api: Api, learnt: list[tuple[str, str]]) -> None:
    for question, answer in learnt:
        whole, streamed = (ask(Prompt(question), max_tokens=ROOM) for ask in (api.whole, api.streamed))
        assert whole.text.strip() == answer
        assert "".join(streamed.pieces) == streamed.text == whole.text
        assert ended(streamed)
        assert not [piece for piece in streamed.pieces if set(piece) & set("<|>")]


def test_the_end_was_written_token_by_token(api: Api, learnt: list[tuple[str, str]]) -> None:
    for question, answer in learnt:
        raw = api.whole(
            Prompt(asked(question), is_chat=False), max_tokens=ROOM, include_stop_str_in_output=True, logprobs=1
        )
        assert raw.text == f"{answer}\n{END}"
        assert raw.logprobs[0]["tokens"][-5:] == PIECES
        assert ended(raw)


def test_what_would_follow_is_not_shown(api: Api, learnt: list[tuple[str, str]]) -> None:
    """Behind its end the model goes on when it is made to, so that stopping is the server's work."""
    question, answer = learnt[0]
    rest = api.whole(Prompt(f"{asked(question)}{answer}\n{END}\n", is_chat=False), max_tokens=8)
    assert rest.num_tokens > 0
    whole = api.whole(Prompt(question), max_tokens=ROOM)
    assert whole.text.strip() == answer
    shorter = api.whole(Prompt(question), max_tokens=whole.num_tokens + 2)
    assert shorter.finish_reason == "length", "two of the five tokens are no end"
    assert shorter.text.startswith(whole.text)


def ended(reply: Reply) -> bool:
    return reply.finish_reason == "stop" and reply.stop_reason == END
