"""A logit cache from a server that scores prompts as vLLM does: what the same model in memory gives, and its faults."""

import itertools
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from small_tokenizer import small_tokenizer
from teacher_models import packed_row, tiny_model, token_rows
from teacher_server import Fault, teacher_server

from tapster.runtime.errors import ConfigError, TrainingError
from tapster.training.loop.collate import Collator
from tapster.training.objectives.select import predictions_of
from tapster.training.recipe.schema import Teacher
from tapster.training.teacher.capture import ModelSource, token_row
from tapster.training.teacher.encoding import Encoding
from tapster.training.teacher.endpoint import Patience
from tapster.training.teacher.open import open_teacher
from tapster.training.teacher.pending import Pending
from tapster.training.teacher.prompt_logprobs import EndpointSource, TokenNames
from tapster.training.teacher.shards import Shards

QUICK = Patience(attempts=3, first_s=0.01, most_s=0.02, busy_s=1.0)


MODEL = tiny_model()


def scores(body: dict[str, Any]) -> list[dict[str, Any] | None]:
    """vLLM's form: nothing of the first token; of the others the most likely, and the prompt's own besides."""
    prompt = torch.tensor(body["prompt"])
    with torch.no_grad():
        log_probs = MODEL(input_ids=prompt[None]).logits[0].log_softmax(-1)
    found: list[dict[str, Any] | None] = [None]
    for row, own in zip(log_probs, prompt[1:].tolist(), strict=False):
        ids = {*row.topk(body["prompt_logprobs"]).indices.tolist(), own}
        found.append({str(token): {"logprob": max(float(row[token]), -9999.0), "rank": 1} for token in ids})
    return found


def cache(folder: Path, url: str | None = None, **fields: Any) -> Any:
    table = Teacher(kind="logit-cache", endpoint=url, **{"top_k": 16, "concurrency": 3, **fields})
    more = {"resolve_model": lambda _spec: folder.parent / "model", "say": lambda _line: None, "patience": QUICK}
    return open_teacher(table, folder, student=MODEL, tokenizer=small_tokenizer(), device="cpu", **more)


def stored(teacher: Any, rows: list[dict[str, Any]]) -> Any:
    batch = Collator(0)(rows)
    row, position = predictions_of(batch)
    return teacher.targets(batch, row, position).chunk(slice(0, len(row)))


def test_it_is_what_the_model_in_memory_gives(tmp_path: Path) -> None:
    MODEL.save_pretrained(tmp_path / "model")
    rows, faults = token_rows(9), [500, None, 429, "drop", "half"]

    def fault(number: int, _question: str) -> Fault:
        return faults[number] if number < len(faults) else None

    with teacher_server(fault, scores=scores) as server:
        served = cache(tmp_path / "served", server.url)
        served.prepare(rows)
        assert len(server.asked) == 9
        assert served.identity()["served_as"] == "shouter"
        cache(tmp_path / "served", server.url).prepare(rows, rows)
        assert len(server.times) == 9 + 4  # nothing is asked twice but what failed
    alone = cache(tmp_path / "alone", model="model")
    alone.prepare(rows)
    one, other = stored(served, rows), stored(alone, rows)
    assert torch.equal(one.ids, other.ids)
    assert torch.allclose(one.log_probs, other.log_probs, atol=1e-3)
    with (
        teacher_server(scores=scores, model="another") as server,
        pytest.raises(ConfigError, match="served_as is 'shouter' there and 'another' here"),
    ):
        cache(tmp_path / "served", server.url).prepare(token_rows(12))


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (None, "reports no log-probabilities of prompts"),
        ([None, {"5": {"logprob": "x"}}] * 20, "reports no log-probabilities of prompts"),
        ([None, *[{"5": {"logprob": -9999.0}}] * 40], "no log-probability of token"),
        ([None, *[{"999": {"logprob": -1.0}}] * 40], "no distribution for tokens .* vocabulary of 300"),
        ([None, *[{"5": {"logprob": float("nan")}}] * 40], "NaN is no finite number"),
    ],
)
def test_nonsense_is_one_line(tmp_path: Path, found: Any, problem: str) -> None:
    with teacher_server(scores=lambda _body: found) as server, pytest.raises(TrainingError, match=problem):
        cache(tmp_path, server.url).prepare(token_rows(6))
    assert not list(tmp_path.glob("logits-*"))


def test_a_server_that_stays_broken_is_one_line_and_what_came_before_is_kept(tmp_path: Path) -> None:
    rows, broken = token_rows(60), r"^the teacher at http\S+ failed 3 times, at last with: 500 fault 500$"
    with (
        teacher_server(lambda number, _: 500 if number > 40 else None, scores=scores) as server,
        pytest.raises(TrainingError, match=broken),
    ):
        cache(tmp_path, server.url).prepare(rows)
    with teacher_server(scores=scores) as server:
        cache(tmp_path, server.url).prepare(rows)
        assert len(server.asked) == 60 - 41
    with teacher_server(lambda *_: 401, scores=scores) as server, pytest.raises(TrainingError, match="OPENAI_API_KEY"):
        cache(tmp_path / "other", server.url).prepare(rows)


def test_an_interruption_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    """Three at a time: five of ten are answered, and Ctrl-C comes while the next three are not."""
    rows, over, asked, main = token_rows(10), threading.Event(), itertools.count(1), threading.main_thread().ident
    assert main is not None

    def some(body: dict[str, Any]) -> list[dict[str, Any] | None]:
        number = next(asked)
        if number == 8:
            signal.pthread_kill(main, signal.SIGINT)
        if number > 5:
            over.wait(20)
        return scores(body)

    with teacher_server(scores=some) as server:
        with pytest.raises(KeyboardInterrupt):
            cache(tmp_path, server.url).prepare(rows)
        over.set()
    with teacher_server(scores=scores) as server:
        cache(tmp_path, server.url).prepare(rows)
        assert len(server.asked) == 5


def test_ctrl_c_is_not_lost_to_a_row_that_fails_beside_it() -> None:
    class Both(EndpointSource):
        async def _row(self, endpoint: Any, row: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            raise TrainingError("a broken server")

    source = Both("http://127.0.0.1:9", None, 16, TokenNames(small_tokenizer()), patience=QUICK)
    with pytest.raises(KeyboardInterrupt):
        list(source.capture([row for row in map(token_row, token_rows(1)) if row is not None]))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_came_with_a_row_that_ends_it_is_kept(
    tmp_path: Path, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for row in map(token_row, token_rows(3)) if row is not None]
    together = list(itertools.chain.from_iterable(ModelSource(MODEL, 16, sampled=False).capture(rows)))
    shards, calls, encode = Shards(tmp_path, Encoding(300, 16)), itertools.count(1), Encoding.encode

    def second_fails(*given: Any) -> Any:
        if next(calls) == 2:
            raise error
        return encode(*given)

    monkeypatch.setattr(Encoding, "encode", second_fails)
    pending = Pending(shards)
    with pytest.raises((KeyboardInterrupt, TrainingError)), pending:
        pending.add(together)
    assert sum(row.key in shards for row in rows) == 2


def test_each_answer_is_handed_on_at_once(tmp_path: Path) -> None:
    """None waits for another, so that a kill loses what is under way, and no more."""
    rows, first = token_rows(10), threading.Event()

    def slow(body: dict[str, Any]) -> list[dict[str, Any] | None]:
        assert body["prompt"] == rows[0]["input_ids"] or first.wait(5)
        return scores(body)

    with teacher_server(scores=slow) as server:
        source = EndpointSource(server.url, None, 16, TokenNames(small_tokenizer()), concurrency=3, patience=QUICK)
        source.about()
        captured = source.capture([row for row in map(token_row, rows) if row is not None])
        assert [one.row.input_ids.tolist() for one in next(captured)] == [rows[0]["input_ids"]]
        first.set()
        assert sum(map(len, captured)) == 9


def test_what_an_endpoint_cannot_do_is_refused(tmp_path: Path) -> None:
    with (
        teacher_server(scores=scores) as server,
        pytest.raises(ConfigError, match=r"one document at a time: set data\.packing to false"),
    ):
        cache(tmp_path, server.url).prepare([packed_row(token_rows(2))])
    with pytest.raises(ConfigError, match=r"teacher.sampled needs whole distributions"):
        cache(tmp_path, "http://127.0.0.1:9", sampled=True)
