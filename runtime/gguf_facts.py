"""What a GGUF file declares about its model: checked values, where each came from, what is wrong with them.

The keys are those of the GGUF specification and of llama.cpp (``gguf-py/gguf/constants.py``), and one of our
own, ``tapster.stop_strings``, because the format has none for stop strings.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from .errors import RequestError
from .ggml_types import FILE_TYPES
from .gguf_files import part_names, read_parts
from .sampling import SamplingParams
from .tokenizer.ends import ENDS_BY_NAME

Kind = TypeVar("Kind", int, str, bool)

TOKENS = "tokenizer.ggml.tokens"
STOP_STRINGS = "tapster.stop_strings"
_CHAT_TEMPLATE = "tokenizer.chat_template"
_SAMPLING = "general.sampling."
_SAMPLING_NAMES = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repeat_penalty",
    "penalty_last_n": "penalty_last_n",
}
_NO_MODEL = {"adapter": "a LoRA adapter", "mmproj": "a vision projector", "imatrix": "an importance matrix"}


class GGUFFacts:
    """The declarations of one model, read one by one; ``sources`` and ``problems`` fill up on the way.

    A value that is absent or of no use is None (or empty); what is of no use leaves a problem behind.
    """

    format = "gguf"
    ends_elsewhere: frozenset[str] = ENDS_BY_NAME
    """Tokens at which llama.cpp's programs stop though the model does not declare it."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(part_names(path.name)[0])
        headers = read_parts(self.path)
        self.metadata = headers[0].metadata
        self.tensors = [tensor for header in headers for tensor in header.tensors]
        self.file_bytes = sum(header.file_bytes for header in headers)
        self.sources: dict[str, str] = {"name": "file name", "parameters": "tensor shapes"}
        self.problems: list[str] = []

    def value(self, field: str, key: str, kind: type[Kind]) -> Kind | None:
        """The value at ``key``, if it is there and of this kind."""
        found = self._scalar(key)
        if found is None:
            return None
        if type(found) is not kind:
            self.problems.append(f"the metadata key {key} is {_short(found)}, not {kind.__name__}: ignored")
            return None
        self.sources[field] = f"metadata key {key}"
        return found

    def _scalar(self, key: str) -> Any:
        """The value at ``key``; an empty list for any array, which nobody who asks here wants decoded."""
        return self.metadata.get(key) if self.metadata.count(key) is None else []

    def name(self) -> str:
        """The file's name without its ending; ``general.name`` is often that of a training run."""
        name = self.path.name
        if len(part_names(name)) > 1:
            return name[: -len("-00001-of-00002.gguf")]
        return name[: -len(".gguf")] if name.lower().endswith(".gguf") else name

    def architecture(self) -> str:
        found = self.value("architecture", "general.architecture", str)
        if found is None:
            self.problems.append("no architecture (general.architecture): llama.cpp will refuse it")
        if what := _NO_MODEL.get(str(self._scalar("general.type"))):
            self.problems.append(f"this is {what}, which goes with a model and is none itself")
        return found or "unknown"

    def context_length(self, architecture: str) -> int:
        key = f"{architecture}.context_length"
        found = self.value("context_length", key, int)
        if not found:
            self.problems.append(f"no context length ({key}): llama.cpp will refuse it")
        return found or 0

    def pooling(self, architecture: str) -> int | None:
        """How hidden states become an embedding: 1 the mean, 2 the first token's, 3 the last's; None not declared."""
        return self.value("pooling", f"{architecture}.pooling_type", int) or None

    def parameters(self) -> int:
        if not self.tensors:
            self.problems.append("no tensors: this is a vocabulary only and cannot be run")
        return sum(tensor.parameters for tensor in self.tensors)

    def file_type(self) -> str:
        """The quantization: the declared one, else the type of most of the tensors' bytes."""
        declared = self.value("file_type", "general.file_type", int)
        if declared in FILE_TYPES:
            return FILE_TYPES[declared]
        self.sources["file_type"] = "tensor types"
        num_bytes: Counter[str] = Counter()
        for tensor in self.tensors:
            num_bytes[tensor.type] += tensor.size_bytes
        return num_bytes.most_common(1)[0][0] if num_bytes else "unknown"

    def chat_templates(self) -> dict[str, str]:
        """The templates by name; the one without a name is called ``default``."""
        templates: dict[str, str] = {}
        keys: list[str] = []
        for key in self.metadata:
            name = "default" if key == _CHAT_TEMPLATE else key.removeprefix(f"{_CHAT_TEMPLATE}.")
            if name != key and (source := self.value("chat_templates", key, str)):
                templates[name] = source
                keys.append(key)
        if keys:
            self.sources["chat_templates"] = f"metadata key {', '.join(keys)}"
        return templates

    def check_vocabulary(self) -> None:
        size = self.metadata.count(TOKENS)
        rows = next((tensor.shape[-1:] for tensor in self.tensors if tensor.name == "token_embd.weight"), None)
        if size is None:
            self.problems.append(f"no vocabulary ({TOKENS}): only token ids can go in and out")
        elif rows and rows[0] != size:
            self.problems.append(
                f"the vocabulary has {size} tokens but the embedding (token_embd.weight) {rows[0]} rows: "
                f"llama.cpp will refuse it, convert the model again"
            )

    def token_id(self, field: str, name: str) -> int | None:
        """The id that ``tokenizer.ggml.NAME_token_id`` declares, if the vocabulary has it."""
        found = self.value(field, f"tokenizer.ggml.{name}_token_id", int)
        size = self.metadata.count(TOKENS)
        if found is not None and size is not None and not 0 <= found < size:
            self.problems.append(f"the {name} token has id {found}, outside the vocabulary of {size}: ignored")
            self.sources.pop(field)
            return None
        return found

    def token_text(self, token_id: int | None) -> str | None:
        """The token as the vocabulary writes it; the other tokens are not decoded for that."""
        if token_id is None or self.metadata.count(TOKENS) is None:
            return None
        return str(self.metadata.item(TOKENS, token_id))

    def is_token(self, text: str) -> bool | None:
        """Whether a token is written so; None where there is no vocabulary."""
        return text in self.metadata[TOKENS] if self.metadata.count(TOKENS) else None

    def end_ids(self, eos_id: int | None) -> tuple[int, ...]:
        """The ids of the tokens that are declared to end a text, a turn or a message."""
        if eos_id is None:
            self.problems.append("no end-of-sequence token (tokenizer.ggml.eos_token_id): llama.cpp guesses one")
        found = {"eos": eos_id, "eot": self.token_id("eog_ids", "eot"), "eom": self.token_id("eog_ids", "eom")}
        ids = {name: token_id for name, token_id in found.items() if token_id is not None}
        if ids:
            self.sources["eog_ids"] = "metadata key " + ", ".join(f"tokenizer.ggml.{name}_token_id" for name in ids)
        return tuple(dict.fromkeys(ids.values()))

    def add_bos(self) -> bool | None:
        return self.value("add_bos", "tokenizer.ggml.add_bos_token", bool)

    def stop_strings(self) -> tuple[str, ...]:
        found = self.metadata.get(STOP_STRINGS, [])
        if not isinstance(found, list) or not all(isinstance(stop, str) and stop for stop in found):
            self.problems.append(f"the metadata key {STOP_STRINGS} is no list of strings: ignored")
            return ()
        if found:
            self.sources["stop_strings"] = f"metadata key {STOP_STRINGS}"
        return tuple(found)

    def sampling(self) -> dict[str, float]:
        """The sampling defaults that the model carries, by the names of SamplingParams."""
        found: dict[str, float] = {}
        for key in self.metadata:
            if not key.startswith(_SAMPLING):
                continue
            stored = self._scalar(key)
            try:
                name, value = _sampling_default(key.removeprefix(_SAMPLING), stored)
                replace(SamplingParams(), **{name: value})
            except (TypeError, ValueError, OverflowError, RequestError) as error:
                self.problems.append(f"the metadata key {key} is {_short(stored)}, {error}: ignored")
            else:
                found[name] = value
        if found:
            self.sources["sampling"] = f"metadata keys {_SAMPLING}*"
        return found


def _sampling_default(key: str, stored: Any) -> tuple[str, float]:
    """Our name and number for one of llama.cpp's. ValueError, TypeError when there is none."""
    if key not in _SAMPLING_NAMES:
        raise ValueError("which tapster does not have")
    name = _SAMPLING_NAMES[key]
    if name == "top_k":
        return name, max(0, int(stored))  # llama.cpp: anything below 1 is off
    if name == "penalty_last_n":
        return name, int(stored)
    return name, float(f"{float(stored):.6g}")  # the file has float32: 0.949999988 was written as 0.95


def _short(value: Any) -> str:
    shown = "an array" if isinstance(value, list) else repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
