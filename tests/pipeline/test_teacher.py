"""The step of the teacher, with a server that counts what it is asked."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from teacher_server import TeacherServer, teacher_server

from tapster.server.pipeline.run import Pipeline

MakePipeline = Callable[..., Pipeline]
NOTHING = ["up to date", "up to date", "not needed", "not needed"]


@pytest.fixture
def server() -> Iterator[TeacherServer]:
    with teacher_server() as server:
        yield server


def teacher(server: TeacherServer, **more: object) -> list[tuple[str, str]]:
    table = {"kind": "text-cache", "model": "shouter", "endpoint": server.url, "max_rows": 8, "top_k": 2, **more}
    changes = [
        (f"teacher.{key}", str(value) if isinstance(value, int) else f"'{value}'") for key, value in table.items()
    ]
    return [
        *changes,
        ("convert", "[]"),
        ("stages.first.objective", "[{term = 'cwce'}]"),
        ("stages.second.data.answers", "'own'"),
    ]


def status(pipeline: Pipeline, step: str) -> tuple[str, list[str]]:
    verdict = pipeline.plan()[step]
    return verdict.status, verdict.why


def test_the_teacher_is_asked_once(server: TeacherServer, fresh: MakePipeline) -> None:
    first = fresh(*teacher(server))
    assert status(first, "teacher") == ("will run", ["not asked yet"])
    first.run()
    asked = sum(server.asked.values())
    assert asked == 8
    assert first.done[0].seconds is not None
    again = fresh(*teacher(server))
    assert [verdict.status for verdict in again.plan().values()] == NOTHING
    again.run()

    elsewhere = fresh(*teacher(server, concurrency=2), ("teacher.endpoint", "http://127.0.0.1:9/v1"))
    assert [verdict.status for verdict in elsewhere.plan().values()] == NOTHING

    more = fresh(*teacher(server, max_rows=12))
    assert status(more, "teacher") == ("will run", ["teacher.max_rows is 12, was 8"])
    more.run()
    assert sum(server.asked.values()) == 12
    assert status(fresh(*teacher(server, max_rows=12)), "train") == ("up to date", [])

    other = fresh(*teacher(server, max_rows=12, max_tokens=9))
    assert status(other, "teacher") == ("will run", ["teacher.max_tokens is 9, was 512"])
    other.run()
    assert sum(server.asked.values()) == 24
    assert list(Path("run/teacher-1").glob("answers-*.jsonl"))
    assert "the answers of the teacher of before are kept in run/teacher-1" in other.job.display.lines  # type: ignore[attr-defined]  ours

    next(Path("run/teacher").glob("answers-*.jsonl")).unlink()
    status_, [why] = status(fresh(*teacher(server, max_rows=12, max_tokens=9)), "teacher")
    assert status_ == "will run"
    assert why.startswith("teacher/answers-")
