"""How a result is used, as a card tells it: by transformers, and by ``tapster serve``."""

from __future__ import annotations

from pathlib import Path

from ...runtime.json_file import read_optional_json

_LOAD = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where these files are, or their name on the Hub
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
"""
_CHAT = """\
messages = [{"role": "user", "content": "What is the capital of Sweden?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
"""
_TEXT = """\
inputs = tokenizer("The capital of Sweden is", return_tensors="pt")
"""
_GENERATE = """\
output = model.generate(**inputs, max_new_tokens=256{more})
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""
_SERVE = """\
Or behind an OpenAI-compatible API, with `pip install 'tapster[transformers]'`:

```console
$ tapster serve FOLDER
```"""


def usage(folder: Path) -> str:
    """Of the model in ``folder``: as a chat if it has a template, with the tokenizer where a text ends its answers."""
    prompt = _CHAT if (folder / "chat_template.jinja").is_file() else _TEXT
    stops = read_optional_json(folder / "generation_config.json").get("stop_strings") or []
    generate = _GENERATE.format(more=", tokenizer=tokenizer" if stops else "")
    parts = ["## Use", f"```python\n{_LOAD}{prompt}{generate}```"]
    if stops:
        texts = " or ".join(f"`{text}`" for text in stops)
        parts.append(f"An answer ends in the text {texts}: transformers finds it only when it is given the tokenizer.")
    return "\n\n".join([*parts, _SERVE])
