"""The data that ships with the package."""

from pathlib import Path

from tapster.training.data.sources import SAMPLES
from tapster.training.samples.make import chat, write


def test_the_files_are_what_the_script_makes(tmp_path: Path) -> None:
    write(tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {name: (SAMPLES / name).read_bytes() for name in ("chat.jsonl", "sums.jsonl", "notes.txt")}


def test_the_notes_say_what_the_chats_say() -> None:
    notes = (SAMPLES / "notes.txt").read_text("utf-8").splitlines()
    assert {*notes} == {f"{question} {answer}" for question, answer in chat()}
    assert not [note for note in notes if "<|" in note]
