"""What a card says of a model's use, done as it is written."""

import re
from pathlib import Path

import pytest
from small_tokenizer import small_tokenizer

from tapster.training.report.usage import usage
from tapster.training.student.save import save_student
from tapster.training.student.scratch import scratch_model

TINY = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
}


@pytest.mark.parametrize(("template", "stops"), [(None, []), ("chatml", []), ("kodalite", ["<|end|>"])])
def test_the_lines_of_the_card_run(
    template: str | None,
    stops: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tokenizer = small_tokenizer(template)
    model = scratch_model(TINY, tokenizer, seed=1)
    folder = save_student(model, tokenizer, tmp_path / "model", dtype="float32", stop_strings=stops)
    monkeypatch.chdir(folder)
    text = usage(folder)
    [lines] = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(lines.replace("max_new_tokens=256", "max_new_tokens=4"), {})
    assert capsys.readouterr().out
    assert ("apply_chat_template" in lines) == (template is not None)
    assert ("tokenizer=tokenizer" in lines) == bool(stops) == ("An answer ends in the text `<|end|>`" in text)
