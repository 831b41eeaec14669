"""From sources to rows: files of all kinds, what is refused, and that the same comes out again."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_tokenizer import small_tokenizer

from tapster.runtime.errors import ConfigError, TrainingError
from tapster.training.data.load import load_examples, load_rows, training_texts
from tapster.training.data.sources import is_changed, open_source, parse_hub, sample_names
from tapster.training.loop.order import group_size
from tapster.training.recipe.schema import Data, Objective, Recipe, Stage, Student, Teacher

PAIRS = [{"question": f"What is {n} and {n}?", "answer": f"It is {2 * n}.", "hard": n % 5} for n in range(40)]


def stage(**data: Any) -> Stage:
    length = data.pop("sequence_length", 128)
    return Stage(
        name="sft", steps=1, sequence_length=length, data=Data(**data), objective=[Objective(term="cross_entropy")]
    )


def load(out: Path, *sources: object, needs: tuple[str, ...] = (), teacher_rows: Any = None, **data: Any) -> Any:
    one = stage(train=[str(source) for source in sources], **data)
    recipe = Recipe(name="x", title="x", student=Student(model="demo"), stages=[one])
    return load_rows(one, recipe, small_tokenizer(), out, needs_columns=needs, teacher_rows=teacher_rows)


def written(path: Path, rows: list[dict]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".parquet":
        from datasets import Dataset

        Dataset.from_list(rows).to_parquet(path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(json.dumps({"canary": "x", "examples": rows}) if path.suffix == ".json" else text)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.parquet"])
def test_files_of_all_kinds_make_the_same_rows(name: str, tmp_path: Path) -> None:
    data = load(tmp_path / "out", written(tmp_path / name, PAIRS), eval_rows=4)
    plain = load(tmp_path / "plain", written(tmp_path / "b.jsonl", PAIRS), eval_rows=4)
    assert data.train[:] == plain.train[:]
    assert (len(data.train), len(data.eval)) == (36, 4)
    assert sorted([*data.train["index"], *data.eval["index"]]) == list(range(40))
    assert list(data.train["hard"]) == [PAIRS[idx]["hard"] for idx in data.train["index"]]
    assert len(data.fingerprints[0]["files"][name]) == 64


def test_again_is_the_same_and_is_read_from_the_disk(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [*PAIRS, {"question": "", "answer": "x"}])
    first = load(tmp_path / "out", path, sequence_length=30)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.arrow")}
    second = load(tmp_path / "out", path, sequence_length=30)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.arrow")} == files
    assert first.train[:] == second.train[:]
    assert first.notes == second.notes
    assert any("1 of 41 rows left out, because question is empty" in note for note in first.notes)


def test_samples_of_the_package(tmp_path: Path) -> None:
    assert sample_names() == ["chat", "notes", "prose", "sums"]
    data = load(tmp_path, "sample:chat", "sample:sums", "sample:prose")
    assert len(data.train) > 350


def test_the_sums_are_right() -> None:
    """The number behind #### is what the last calculation gives, and every calculation is right."""
    for row in open_source("sample:sums").rows():
        body, _, number = row["answer"].rpartition("#### ")
        last = None
        for words in (part.split() for part in body.split("\n")):
            for at, word in enumerate(words):
                if word == "=":
                    left, sign, right, found = words[at - 3], words[at - 2], words[at - 1], words[at + 1].rstrip(".")
                    a, b = int(left), int(right)
                    last = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign]
                    assert last == int(found), row
        assert last == int(number), row


def test_real_text_and_packing(shared_data: Path, tmp_path: Path) -> None:
    data = load(tmp_path, shared_data / "gsm8k" / "train.jsonl.gz", packing=True, max_rows=200, sequence_length=512)
    assert all(len(ids) <= 512 for ids in data.train["input_ids"])
    used = sum(map(len, data.train["input_ids"])) / (512 * len(data.train))
    assert used > 0.9
    assert {len(row["segments"]) == len(row["input_ids"]) == len(row["labels"]) for row in data.train} == {True}
    assert sorted([*data.train["index"], *data.eval["index"]]) == list(range(len(data.train) + len(data.eval)))


def test_a_teacher_replaces_answers_and_adds_numbers(tmp_path: Path) -> None:
    def teach(rows: Any) -> Any:
        said = {"role": "assistant", "content": "Ask me later.", "reasoning_content": None}
        return rows.map(lambda row: {"messages": [row["messages"][0], said], "output_entropy": 0.25})

    data = load(tmp_path, written(tmp_path / "a.jsonl", PAIRS), needs=("output_entropy",), teacher_rows=teach)
    assert set(data.train["output_entropy"]) == {0.25}
    row = data.train[0]
    learnt = [token for token in row["labels"] if token >= 0]
    assert small_tokenizer().decode(learnt) == "Ask me later.<|im_end|>"


def test_ordering_by_length_needs_no_column(tmp_path: Path) -> None:
    data = load(tmp_path, "sample:chat", curriculum={"order": "strict", "by": "length"})
    assert data.train["length"][:] == [float(len(ids)) for ids in data.train["input_ids"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text": \n', r"a.jsonl:2 is no JSON \(Expecting value\): repair or remove the line"),
        (b"[1, 2]\n", r"a.jsonl:1 is a JSON list, not an object"),
        (b'{"text": "\xff"}\n', r"a.jsonl:1 is no JSON \(UnicodeDecodeError\)"),
        (b"", "there are no rows"),
        (b'{"messages": []}\n', "1 of 1 rows left out, because it has no messages"),
        (b'{"post": "a"}\n' * 2000, "1000 of 1000 rows left out, because no known format has the columns post"),
        (b'{"post": "a"}\n', "no known format has the columns post"),
    ],
)
def test_a_bad_file_is_one_clear_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "out", tmp_path / "a.jsonl")
    assert not list((tmp_path / "out").rglob(".*.arrow*"))


@pytest.mark.parametrize("content", ['"abc"', "5", "null", "[5]"])
def test_json_that_holds_no_rows_is_one_clear_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ConfigError, match=r"a.json: entry 0 is (str|int|NoneType), not an object"):
        load(tmp_path / "out", tmp_path / "a.json")


def test_numbers_that_are_too_long_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"text": "a", "id": ' + "1" * 5000 + "}]")
    with pytest.raises(ConfigError, match=r"a.json:1 is no JSON \(ValueError\)"):
        load(tmp_path / "out", tmp_path / "a.json")
    (tmp_path / "b.json").write_text('[{"text": "a", "id": ' + "1" * 400 + "}]")
    assert "id" not in load(tmp_path / "out", tmp_path / "b.json").train.column_names


CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]


@pytest.mark.parametrize("content", [{"messages": CHAT}, {"conversations": SHAREGPT}, CHAT, [{"messages": CHAT}]])
def test_a_json_file_of_one_conversation_is_one_row(content: Any, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(content))
    data = load(tmp_path / "out", tmp_path / "one.json")
    assert len(data.train) == 1
    assert small_tokenizer().decode([token for token in data.train[0]["labels"] if token >= 0]) == "Yo<|im_end|>"


def test_each_row_may_have_a_format_of_its_own(tmp_path: Path) -> None:
    rows = [
        {"question": None, "answer": None},
        {"question": "Why?", "answer": "So."},
        {"messages": CHAT},
        {"message_id": "q", "parent_id": None, "role": "prompter", "text": "Who?"},
        {"message_id": "a", "parent_id": "q", "role": "assistant", "text": "I."},
    ]
    data = load(tmp_path / "out", written(tmp_path / "a.jsonl", rows))
    learnt = [[token for token in labels if token >= 0] for labels in data.train["labels"]]
    assert small_tokenizer().batch_decode(learnt) == ["So.<|im_end|>", "Yo<|im_end|>", "I.<|im_end|>"]
    assert not any("warning" in note for note in data.notes)


def test_a_source_that_is_mostly_of_no_use_is_warned_of(tmp_path: Path) -> None:
    data = load(tmp_path / "out", written(tmp_path / "a.jsonl", [{"messages": CHAT}, *[{"messages": []}] * 2]))
    assert data.notes[0].startswith("warning: ")
    assert data.notes[0].endswith("a.jsonl: most of it is of no use: 2 of 3 rows")


def test_notes_that_were_being_written_are_no_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.jsonl", [*PAIRS, {"question": "", "answer": "x"}])

    def half(self: Path, text: str, *_: Any) -> None:
        self.write_bytes(text.encode()[:9])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", half)
        with pytest.raises(TrainingError, match=r"cannot write the training rows .* No space left"):
            load(tmp_path / "out", path)
    assert not list((tmp_path / "out").rglob("*.json"))
    load(tmp_path / "out", path)


def test_notes_that_cannot_be_read_are_made_anew(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", PAIRS)
    whole = load(tmp_path / "out", path)
    for notes in (tmp_path / "out" / "data").glob("*.json"):
        notes.write_bytes(b"")
    again = load(tmp_path / "out", path)
    assert (again.train[:], again.notes) == (whole.train[:], whole.notes)


def test_files_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    for place in ("x", "y"):
        (tmp_path / "data" / place).mkdir(parents=True)
        written(tmp_path / "data" / place / "a.jsonl", PAIRS)
    source = str(tmp_path / "data")
    before = open_source(source).fingerprint
    assert list(before["files"]) == ["x/a.jsonl", "y/a.jsonl"]
    written(tmp_path / "data" / "x" / "a.jsonl", PAIRS[:3])
    assert is_changed(before)
    assert not is_changed(open_source(source).fingerprint)


def test_what_a_folder_says_of_its_data_is_no_data(tmp_path: Path) -> None:
    for name in ("README.md", "LICENSE", "LICENSE.txt", "notes.md", "a.jsonl"):
        (tmp_path / name).write_text(json.dumps(PAIRS[0]))
    assert list(open_source(str(tmp_path)).fingerprint["files"]) == ["a.jsonl"]
    assert list(open_source(str(tmp_path / "notes.md")).rows()) == [{"text": json.dumps(PAIRS[0])}]
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"has no training data: known are .*; name a .md file itself"):
        open_source(str(tmp_path))


RANKED = [
    {"question": f"{n}?", "answer": f"{rank}.", "group": 2**60 + n // 2, "rank": rank}
    for n in range(0, 80, 2)
    for rank in range(2)
]


@pytest.mark.parametrize("options", [{"eval_rows": 5}, {"eval_rows": 4, "max_rows": 41}])
def test_ranked_answers_stay_together_and_apart_from_others(options: dict[str, int], tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", RANKED)
    data = load(tmp_path / "out", path, path, needs=("group", "rank"), **options)
    assert len(data.eval) == 4
    assert len(data.train) + len(data.eval) == {5: 160, 4: 40}[options["eval_rows"]]
    for part in (data.train, data.eval):
        groups = np.asarray(part["group"])
        assert group_size(part["group"][:]) == 2
        assert (groups == groups.astype(np.float32)).all()
        assert len(set(groups)) == len(part) / 2, "the same ids in another file are other groups"
        assert part["rank"][:] == [0.0, 1.0] * (len(part) // 2)


def test_ranked_answers_that_came_apart_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [*RANKED[::2], *RANKED[1::2]])
    with pytest.raises(ConfigError, match="other rows stand between them: sort the data by group"):
        load(tmp_path / "out", path, needs=("group", "rank"))
    assert len(load(tmp_path / "out", path, eval_rows=0).train) == 80, "to nobody else it matters"


def test_questions_are_enough_where_a_teacher_answers(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"question": f"What is {n}?"} for n in range(20)])
    one = stage(train=[str(path)])
    asks = Recipe(
        name="x", title="x", student=Student(model="demo"), stages=[one], teacher=Teacher(kind="text-cache", model="m")
    )
    examples: Any = load_examples(one, asks, tmp_path / "out").train
    assert [messages[-1]["role"] for messages in examples["messages"]] == ["user"] * 20
    with pytest.raises(ConfigError, match="20 of 20 rows left out, because no known format has the columns question"):
        load_examples(one, asks.model_copy(update={"teacher": None}), tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nothing.jsonl", {}, "there is no file or folder nothing.jsonl"),
        ("sample:caht", {}, "no sample data 'caht': did you mean sample:chat?"),
        ("hub:a b", {}, "'hub:a b' is no address of a data set"),
        ("teacher", {}, "the source teacher needs the teacher's text cache"),
        (
            "sample:sums",
            {"needs": ("output_entropy",)},
            "needs the column output_entropy, which not all of its rows have",
        ),
        ("sample:sums", {"curriculum": {"order": "strict"}}, "say by which column"),
        (
            "sample:chat",
            {"sequence_length": 8},
            "the stage sft has nothing to train on: sft: 176 of 176 examples left out",
        ),
        (
            "sample:sums",
            {"packing": True, "curriculum": {"order": "strict", "by": "length"}},
            "set data.packing = false",
        ),
    ],
)
def test_what_cannot_be_is_refused(source: str, options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, source, **options)


def test_a_column_that_some_rows_lack_is_none(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [*PAIRS, {"question": "Why?", "answer": "So."}])
    assert "hard" not in load(tmp_path, path).train.column_names
    with pytest.raises(ConfigError, match="did you mean hard"):
        load(tmp_path / "b", written(tmp_path / "b.jsonl", PAIRS), needs=("hrad",))


def test_a_disk_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(TrainingError, match="cannot write the training rows"):
        load(tmp_path, "sample:chat")


def test_no_network_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"hub:tapster-test/none:train cannot be fetched .*--data|no such data set"):
        load(tmp_path, "hub:tapster-test/none")


def test_addresses_of_the_hub() -> None:
    assert parse_hub("a/b") == ("a/b", None, "train")
    assert parse_hub("a/b:main") == ("a/b", "main", "train")
    assert parse_hub("a/b:test") == ("a/b", None, "test")
    assert parse_hub("a/b:main:validation") == ("a/b", "main", "validation")
    assert parse_hub("a/b:train[:5000]") == ("a/b", None, "train[:5000]")
    assert parse_hub("a/b:main:train[10:5000]+test[:10%]") == ("a/b", "main", "train[10:5000]+test[:10%]")
    with pytest.raises(ConfigError, match=r"hub:a/b:main:train:\[:5\] has too many parts"):
        parse_hub("a/b:main:train:[:5]")


def test_a_data_set_as_the_hub_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of that name is opened as the Hub's copy would be: configurations, splits, columns of other types."""
    rows = [{**pair, "id": f"row-{idx}", "tags": ["sum"], "meta": {"at": None}} for idx, pair in enumerate(PAIRS)]
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    folder = tmp_path / "org" / "sums"
    (folder / "main").mkdir(parents=True)
    written(folder / "main" / "train.parquet", rows)
    written(folder / "main" / "test.parquet", rows[:3])
    files = [{"split": split, "path": f"main/{split}.parquet"} for split in ("train", "test")]
    configs = json.dumps([{"config_name": "main", "data_files": files}])
    (folder / "README.md").write_text(f"---\nlicense: mit\nconfigs: {configs}\n---\n")
    monkeypatch.chdir(tmp_path)
    data = load(tmp_path / "out", "hub:org/sums:main:train[:20]", eval_rows=0)
    assert list(data.train["index"]) == list(range(20))
    assert list(data.train["hard"]) == [pair["hard"] for pair in PAIRS[:20]]
    assert data.fingerprints[0]["split"] == "train[:20]"
    assert len(load(tmp_path / "test", "hub:org/sums:test", eval_rows=0).train) == 3
    some = [load(tmp_path / "some", "hub:org/sums", eval_rows=0, max_rows=count) for count in (5, 7)]
    assert [len(data.train) for data in some] == [5, 7], "also in one folder"
    assert list(some[0].train["hard"]) != [pair["hard"] for pair in PAIRS[:5]], "chosen at random, as of files"
    assert len(load(tmp_path / "slice", "hub:org/sums:train[:20]", eval_rows=0, max_rows=5).train) == 5
    with pytest.raises(ConfigError, match=r"hub:org/sums:other:train cannot be opened: .*main"):
        load(tmp_path / "other", "hub:org/sums:other:train")


def on_the_hub(folder: Path, rows: list[dict], monkeypatch: pytest.MonkeyPatch) -> None:
    """As org/rows: a folder of that name is opened as the Hub's copy would be."""
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)  # after each reading of a Parquet stream
    (folder / "org" / "rows").mkdir(parents=True)
    written(folder / "org" / "rows" / "train.parquet", rows)
    monkeypatch.chdir(folder)


def test_stages_that_read_one_stream_share_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_hub(tmp_path, PAIRS * 3, monkeypatch)
    counts = {"first": 50, "second": 30, "third": 40, "fourth": 20}
    stages = [
        stage(train=[address], max_rows=count, eval_rows=4).model_copy(update={"name": name})
        for (name, count), address in zip(counts.items(), ["hub:org/rows", "hub:org/rows:train"] * 2, strict=True)
    ]
    recipe = Recipe(name="x", title="x", student=Student(model="demo"), stages=stages)
    taken = {one.name: load_examples(one, recipe, tmp_path / "out").train["messages"][:] for one in stages[:3]}
    assert {name: len(rows) for name, rows in taken.items()} == {"first": 50, "second": 30, "third": 40}
    everything = Counter(messages[0]["content"] for rows in taken.values() for messages in rows)
    assert everything == {pair["question"]: 3 for pair in PAIRS}, "each row once"
    with pytest.raises(ConfigError, match=r"hub:org/rows:train behind its first 120 rows: there are no rows"):
        load_examples(stages[3], recipe, tmp_path / "out")


def test_of_single_messages_whole_conversations_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [
        {"message_id": f"{tree}-{turn}", "parent_id": f"{tree}-{turn - 1}" if turn else None, "text": f"{tree}-{turn}"}
        | {"role": "assistant" if turn % 2 else "prompter"}
        for tree in range(30)
        for turn in range(4)
    ]
    on_the_hub(tmp_path, messages, monkeypatch)
    one = stage(train=["hub:org/rows"], max_rows=20)
    recipe = Recipe(name="x", title="x", student=Student(model="demo"), stages=[one])
    conversations = load_examples(one, recipe, tmp_path / "out").train["messages"][:]
    trees = [[turn["content"] for turn in turns] for turns in conversations]
    assert len(trees) == 20
    assert all(texts == [f"{texts[0][:-2]}-{turn}" for turn in range(4)] for texts in trees)


def test_texts_for_a_tokenizer(tmp_path: Path) -> None:
    recipe = Recipe(
        name="x",
        title="x",
        student=Student(model="demo"),
        stages=[stage(train=["sample:prose"]), stage(train=["sample:chat"])],
    )
    texts = list(training_texts(recipe, tmp_path))
    assert texts[0].startswith("The Ferry")
    assert "The capital of France is Paris." in texts
