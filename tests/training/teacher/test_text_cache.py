"""The text cache against a server that refuses, falters and disappears, and on disks that fail."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from teacher_server import RETRY_AFTER_S, Fault, teacher_server

from tapster.runtime.errors import ConfigError, TrainingError
from tapster.training.recipe.schema import Consistency, Teacher
from tapster.training.teacher.endpoint import Patience, base_url, retry_after_s
from tapster.training.teacher.open import open_teacher
from tapster.training.teacher.progress import Price, Progress
from tapster.training.teacher.text_cache import TextCache

QUICK = Patience(attempts=4, first_s=0.01, most_s=0.02, busy_s=2.0)


def asked(number: int) -> list[dict[str, str | None]]:
    return [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": "data's own answer"}]


def cache(url: str | None, folder: Path, said: list[str] | None = None, **fields: Any) -> TextCache:
    table = Teacher(kind="text-cache", endpoint=url, **{"concurrency": 4, **fields})
    return TextCache(table, folder, say=(said if said is not None else []).append, patience=QUICK)


def records(folder: Path) -> list[dict[str, Any]]:
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def _whole_records(folder: Path) -> list[dict[str, Any]]:
    """After a kill: without a line that was being written."""
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def test_answers_are_kept_with_what_is_known_of_them(tmp_path: Path) -> None:
    said: list[str] = []
    with teacher_server() as server:
        teacher = cache(server.url, tmp_path, said, consistency=Consistency(samples=3))
        teacher.prepare([asked(1), asked(2), asked(1)])
        assert server.asked == {"question 1": 4, "question 2": 4}  # one answer and three samples; asked once each
        teacher.prepare([asked(1), asked(3)])
        assert server.asked["question 1"] == 4
    [first, *_] = [one for one in records(tmp_path) if one["prompt"] == "question 1"]
    probs = [math.exp(-0.5), math.exp(-1.5)]
    rest = 1 - sum(probs)
    entropy = sum(-p * math.log(p) for p in [*probs, rest])
    assert first["teacher_text"] == "QUESTION 1"
    assert first["output_entropy"] == pytest.approx(entropy)
    assert (first["entropy_estimator"], first["top_k"], first["entropy_unit"]) == ("top-k", 2, "nats")
    assert first["self_consistency"] == 1.0
    assert first["difficulty_score"] == pytest.approx((1 - math.exp(-entropy)) / 2)
    assert first["teacher"]["model"] == "shouter"
    assert "mean entropy" in said[-1]
    rows = teacher.rows(Dataset.from_list([{"messages": asked(n), "index": n} for n in (3, 1, 9)]))
    assert [row["index"] for row in rows] == [3, 1]  # type: ignore[index, call-overload]  rows are tables
    assert rows[0]["messages"][-1] == {"role": "assistant", "content": "QUESTION 3"}
    assert rows[0]["output_entropy"] == pytest.approx(entropy)
    assert "2 of 3 conversations have a whole answer; 1 are left out" in said[-1]
    assert len(teacher.all_rows()) == 3


def test_documents_among_questions_stay_as_they_are(tmp_path: Path) -> None:
    said: list[str] = []
    document = {"messages": None, "text": "Running text.", "index": 7}
    talks = [{"messages": asked(number), "text": None, "index": number} for number in (1, 9)]
    with teacher_server() as server:
        teacher = cache(server.url, tmp_path, said)
        teacher.prepare([asked(1)])
        assert "output_entropy" in teacher.rows(Dataset.from_list(talks)).column_names
        rows: Any = teacher.rows(Dataset.from_list([talks[1], document, talks[0]]))
        with pytest.raises(TrainingError, match="no answer to any of the 1 conversations"):
            teacher.rows(Dataset.from_list([talks[1], document]))
    assert list(rows["index"]) == [7, 1]
    assert rows[0]["text"] == "Running text."
    assert rows[1]["messages"][-1]["content"] == "QUESTION 1"
    assert set(rows.column_names) == {"messages", "text", "index"}  # what no document has, nobody has
    assert said[-1] == "1 of 2 conversations have a whole answer; 1 are left out"


def test_it_outlasts_refusals_errors_and_lost_connections(tmp_path: Path) -> None:
    faults: list[Fault] = [429, 500, "drop", None, 503, "half", None, 502, "drop"]

    def fault(number: int, _question: str) -> Fault:
        return faults[number] if number < len(faults) else None

    with teacher_server(fault, delay_s=0.3) as server:
        cache(server.url, tmp_path).prepare([asked(n) for n in range(12)])
        assert sorted(one["prompt"] for one in records(tmp_path)) == sorted(f"question {n}" for n in range(12))
        assert set(server.asked.values()) == {1}
        refused_s, *later_s = [when for when, _ in server.times]
        assert min(later_s[3:]) - refused_s >= RETRY_AFTER_S  # three were under way when the 429 came


def test_a_busy_server_wears_nobody_out(tmp_path: Path) -> None:
    """More refusals than ``attempts``, and one real fault."""
    faults: list[Fault] = [503, 503, 503, 503, 503, 502]
    with teacher_server(lambda number, _: faults[number] if number < len(faults) else None) as server:
        cache(server.url, tmp_path).prepare([asked(1)])
        assert len(server.times) == 7


def test_a_server_that_wants_to_be_left_alone_for_long_is_left(tmp_path: Path) -> None:
    with (
        teacher_server(lambda *_: 429, retry_after="86400") as server,
        pytest.raises(TrainingError, match=r"wants to be left alone for 86400 s: 429 fault 429; 0 answers"),
    ):
        cache(server.url, tmp_path).prepare([asked(1)])
    assert len(server.times) == 1


def test_a_server_that_stays_broken_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    with teacher_server(lambda _, question: 500 if question == "question 7" else None) as server:
        teacher = cache(server.url, tmp_path, concurrency=1)
        with pytest.raises(TrainingError, match=r"failed 4 times, at last with: 500 fault 500; 7 answers are kept"):
            teacher.prepare([asked(n) for n in range(12)])
    with teacher_server() as server:
        cache(server.url, tmp_path, concurrency=1).prepare([asked(n) for n in range(12)])
        assert len(server.asked) == 5
    assert len(records(tmp_path)) == 12
    with teacher_server(lambda *_: 429) as server, pytest.raises(TrainingError, match=r"failed for \d+ s.*429"):
        cache(server.url, tmp_path).prepare([asked(99)])
    with teacher_server(lambda *_: 401) as server, pytest.raises(TrainingError, match="OPENAI_API_KEY"):
        cache(server.url, tmp_path).prepare([asked(99)])
    with pytest.raises(TrainingError, match="failed 4 times"):
        cache("http://127.0.0.1:9/v1", tmp_path).prepare([asked(99)])


def test_a_sample_that_fails_is_the_same_one_line(tmp_path: Path) -> None:
    with (
        teacher_server(lambda number, _: 500 if number else None) as server,
        pytest.raises(
            TrainingError, match=r"^the teacher at \S+ failed 4 times, at last with: 500 .*0 answers are kept"
        ),
    ):
        cache(server.url, tmp_path, consistency=Consistency(samples=3)).prepare([asked(1)])


def test_samples_that_were_cut_off_say_nothing(tmp_path: Path) -> None:
    """Of one answer and four samples the last two reach ``max_tokens``, before they come to an answer."""
    whole = {"message": {"role": "assistant", "content": "Two and two. #### 4"}}
    cut = {"message": {"role": "assistant", "content": "Two, that is 1 and 1"}, "finish_reason": "length"}
    question = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "#### 4"}]
    with teacher_server(choice=lambda number: whole if number < 3 else cut) as server:
        cache(server.url, tmp_path, concurrency=1, consistency=Consistency(samples=4)).prepare([question])
    [record] = records(tmp_path)
    assert record["samples"] == ["Two and two. #### 4"] * 2
    assert (record["self_consistency"], record["difficulty_score"]) == (1.0, 0.0)
    assert record["usage"]["completion_tokens"] == 5 * 2  # paid for all the same


def test_a_whole_answer_is_learnt_though_its_samples_were_cut_off(tmp_path: Path) -> None:
    """Of the first question all are whole, of the second only the answer; then one has no probabilities."""
    whole = {"message": {"role": "assistant", "content": "#### 4"}}
    cut = {"message": {"role": "assistant", "content": "That is 1 and"}, "finish_reason": "length"}
    replies = [whole, whole, whole, whole, cut, cut, {**whole, "logprobs": None}, cut, cut]
    talks = Dataset.from_list([{"messages": asked(number), "index": number} for number in (1, 2, 3)])
    with teacher_server(choice=lambda number: replies[number]) as server:
        teacher = cache(server.url, tmp_path, concurrency=1, consistency=Consistency(samples=2))
        for number in (1, 2, 3):
            teacher.prepare([asked(number)])
    assert [one["self_consistency"] for one in records(tmp_path)] == [1.0, None, None]

    def taught(*needs: str) -> tuple[Any, list[str]]:
        said: list[str] = []
        brought = Teacher(kind="text-cache", cache=str(tmp_path))
        teacher = open_teacher(brought, tmp_path, resolve_model=Path, needs_columns=needs, say=said.append)
        return teacher.rows(talks), said

    rows, said = taught("rank")
    assert (rows["index"][:], rows.column_names, said) == ([1, 2, 3], ["messages", "index"], [])
    rows, said = taught("output_entropy")
    assert (rows["index"][:], rows.column_names[2:]) == ([1, 2], ["output_entropy", "difficulty_score"])
    assert said == ["1 of 3 answers are left out, for they have no output_entropy"]
    rows, said = taught("self_consistency", "output_entropy")
    assert (rows["index"][:], len(rows.column_names)) == ([1], 5)
    [path] = tmp_path.glob("*.jsonl")
    _, without_consistency, without_entropy = records(tmp_path)
    without_entropy["self_consistency"] = 1.0
    path.write_text(f"{json.dumps(without_consistency)}\n{json.dumps(without_entropy)}\n")
    with pytest.raises(TrainingError, match=r"each answer in .* has no self_consistency or no output_entropy"):
        taught("self_consistency", "output_entropy")


def test_answers_that_were_cut_off_are_not_used_and_not_asked_again(tmp_path: Path) -> None:
    said: list[str] = []
    with teacher_server(finish_reason="length") as server:
        teacher = cache(server.url, tmp_path, said)
        teacher.prepare([asked(1)])
        teacher.prepare([asked(1)])
        assert server.asked["question 1"] == 1
    assert "1 cut off at 512 tokens" in said[-1]
    with pytest.raises(TrainingError, match="no answer to any"):
        teacher.rows(Dataset.from_list([{"messages": asked(1)}]))


def test_without_probabilities_answers_are_kept_all_the_same(tmp_path: Path) -> None:
    with teacher_server(logprobs=None) as server:
        teacher = cache(server.url, tmp_path)
        teacher.prepare([asked(1)])
    assert teacher.rows(Dataset.from_list([{"messages": asked(1)}])).column_names == ["messages"]


def test_nonsense_is_no_answer(tmp_path: Path) -> None:
    token = {"token": "A", "logprob": math.nan, "top_logprobs": []}
    with (
        teacher_server(logprobs={"content": [token]}) as server,
        pytest.raises(TrainingError, match="NaN is no finite"),
    ):
        cache(server.url, tmp_path).prepare([asked(1)])
    with (
        teacher_server(logprobs={"content": [{**token, "logprob": "x"}]}) as server,
        pytest.raises(TrainingError, match="no sense"),
    ):
        cache(server.url, tmp_path).prepare([asked(1)])
    assert not records(tmp_path)


def test_damaged_files(tmp_path: Path) -> None:
    said: list[str] = []
    with teacher_server() as server:
        cache(server.url, tmp_path).prepare([asked(n) for n in range(5)])
        [path] = tmp_path.glob("*.jsonl")
        path.write_bytes(path.read_bytes()[:-40])  # as a crash leaves it
        cache(server.url, tmp_path, said).prepare([asked(n) for n in range(5)])
        assert "1 unfinished last line(s) removed" in said[0]
        assert sum(server.asked.values()) == 6
        lines = path.read_text().splitlines()
        lines[2] = lines[2].replace('"output_entropy": ', '"output_entropy": NaN, "x": ')
        path.write_text("\n".join(lines) + "\n")
        with pytest.raises(TrainingError, match=r"line 3 is damaged \(NaN is no finite number\): delete that line"):
            cache(server.url, tmp_path).prepare([asked(1)])


def test_a_cache_belongs_to_one_way_of_asking(tmp_path: Path) -> None:
    with teacher_server() as server:
        cache(server.url, tmp_path).prepare([asked(1)])
        with pytest.raises(ConfigError, match=r"temperature is 0\.0 there and 1\.0 here"):
            cache(server.url, tmp_path, temperature=1.0).prepare([asked(1)])
    with (
        teacher_server(model="another") as server,
        pytest.raises(ConfigError, match="served_as is 'shouter' there and 'another' here"),
    ):
        cache(server.url, tmp_path).prepare([asked(1), asked(2)])
    brought = cache(None, tmp_path)
    brought.prepare([asked(1), asked(2)])
    assert len(brought.rows(Dataset.from_list([{"messages": asked(1)}]))) == 1


def test_of_too_many_questions_some_are_chosen_whatever_their_order(tmp_path: Path) -> None:
    with teacher_server() as server:
        parts = [asked(n) for n in range(12)], [asked(n) for n in range(12, 20)]
        cache(server.url, tmp_path, max_rows=5).prepare(*parts)
        chosen = set(server.asked)
        assert len(chosen) == 5
        cache(server.url, tmp_path, max_rows=5).prepare([asked(n) for n in reversed(range(20))])
        assert set(server.asked) == chosen
        cache(server.url, tmp_path, max_rows=8).prepare([asked(n) for n in range(20)])
        assert chosen < set(server.asked)
        assert len(server.asked) == sum(server.asked.values()) == 8


CHILD = """
import sys
from pathlib import Path
from tapster.runtime.errors import TapsterError
from tapster.training.recipe.schema import Teacher
from tapster.training.teacher.text_cache import TextCache
table = Teacher(kind="text-cache", endpoint=sys.argv[1], concurrency=4)
asked = [[{"role": "user", "content": f"question {n}"}] for n in range(60)]
try:
    TextCache(table, Path(sys.argv[2]), say=print).prepare(asked)
except TapsterError as error:
    sys.exit(f"tapster: {error}")
"""


def test_a_kill_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    with teacher_server(delay_s=0.02) as server:
        command = [sys.executable, "-c", CHILD, server.url, str(tmp_path)]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while sum(server.asked.values()) < 15 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        kept = {one["prompt"] for one in _whole_records(tmp_path)}
        assert 5 <= len(kept) < 60
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        twice = {prompt for prompt, count in server.asked.items() if count > 1}
        assert not twice & kept
        assert len(twice) <= 4 + 4  # answers that were under way: to us, and from us to the disk
    assert len({one["id"] for one in records(tmp_path)}) == len(records(tmp_path)) == 60


@pytest.mark.parametrize("limit", ["file", "disk"])
def test_a_full_disk_is_one_line(tmp_path: Path, limit: str) -> None:
    if limit == "disk" and not may_mount():
        pytest.skip("this user may not mount a small file system")
    keep = tmp_path / "kept"
    with teacher_server() as server:
        command = [sys.executable, "-c", CHILD, server.url]
        if limit == "disk":
            script = 'mount -t tmpfs -o size=20k none "$0"; "$@" "$0"; status=$?; cp -r "$0" "$KEEP"; exit $status'
            command = ["unshare", "-rm", "sh", "-c", script, str(_made(tmp_path / "small")), *command]
            problem = "No space left on device"
        else:
            command = ["sh", "-c", 'ulimit -f 12; "$@"', "sh", *command, str(keep)]
            problem = "File too large"
        environment = {**os.environ, "KEEP": str(keep)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
        assert "cannot write" in done.stderr
        assert problem in done.stderr
        assert "Traceback" not in done.stderr
        kept = records(keep)  # every line is whole
        assert f"{len(kept)} answers are kept" in done.stderr
        assert 2 < len(kept) < 60
        cache(server.url, keep).prepare([{"role": "user", "content": f"question {n}"}] for n in range(60))
        assert {server.asked[one["prompt"]] for one in kept} == {1}
    assert len({one["id"] for one in records(keep)}) == len(records(keep)) == 60


def may_mount() -> bool:
    """Whether this user may have a file system of its own."""
    if shutil.which("unshare") is None:
        return False
    mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(mount, capture_output=True, check=False).returncode == 0


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_addresses_and_waiting_times() -> None:
    assert base_url("http://a:1") == base_url("http://a:1/") == base_url("http://a:1/v1/") == "http://a:1/v1"
    assert base_url("https://a/api/v3") == "https://a/api/v3"
    with pytest.raises(ConfigError, match="is no address"):
        base_url("localhost:8000")
    assert retry_after_s("1.5") == 1.5
    assert retry_after_s("Thu, 01 Jan 1970 00:00:00 GMT") == 0
    for nonsense in ("soon", "inf", "nan", "1e999"):
        assert retry_after_s(nonsense) is None
    waits = [Patience(first_s=1, most_s=8).wait_s(n) for n in (1, 2, 3, 4, 99)]
    assert all(limit / 2 <= wait <= limit for wait, limit in zip(waits, (1, 2, 4, 8, 8), strict=True))


def test_progress_knows_cost_and_time_left() -> None:
    progress = Progress("teacher", 10, 2, print, Price.read("1,2"))
    progress.add(4, 1_000_000, 500_000)
    assert "cost 2.5 of about 5," in progress.about()
    assert "left" in progress.about()
    for wrong in ("1", "a,b", "-1,2"):
        with pytest.raises(ConfigError, match="--price"):
            Price.read(wrong)
