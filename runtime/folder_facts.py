"""What the files of a model's folder declare: checked values, where each came from, what is wrong with them.

The keys are those of transformers (config.json, generation_config.json, tokenizer_config.json) and, for ONNX, those of
onnxruntime-genai (genai_config.json).
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .chat.files import find_templates
from .checkpoint_files import CONFIG, GENAI_CONFIG
from .errors import ModelError, RequestError
from .folder_configs import GENERATION_CONFIG, SPECIAL_TOKENS, TOKENIZER_CONFIG, Found, read_configs
from .folder_weights import read_weights
from .model_folder import folder_format, folder_name
from .safetensors_header import shown
from .sampling import SamplingParams
from .tokenizer.vocabulary import FolderVocabulary, read_vocabulary, token_text

_CONTEXT_KEYS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx"),
    "model_max_length",
)
_SAMPLING_NAMES = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repeat_penalty",
}


class FolderFacts:
    """The declarations of one model, read one by one; ``sources`` and ``problems`` fill up on the way.

    A value that is absent or of no use is None (or empty); what is of no use leaves a problem behind. ModelError when
    a file is damaged or missing that nothing works without.
    """

    ends_elsewhere: frozenset[str] = frozenset()
    """Tokens at which other programs stop though the model does not declare it: of these formats' programs none do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.configs = read_configs(path)
        self.format = folder_format(path) or "hf"
        self.weights = read_weights(self.configs, self.format)
        self.file_bytes = sum(file.stat().st_size for file in self.weights.files)
        self.sources: dict[str, str] = {"name": "folder name", "parameters": "tensor shapes"}
        self.problems: list[str] = []
        self._check_files()

    def _check_files(self) -> None:
        """What the folder lacks, or has and should not."""
        if not self.configs.files[GENERATION_CONFIG]:
            self.problems.append(f"no {GENERATION_CONFIG}: ends and sampling defaults are those of other files only")
        if self.format == "onnx" and not self.configs.files[GENAI_CONFIG]:
            self.problems.append(f"no {GENAI_CONFIG}: onnxruntime-genai cannot load it")
        if isinstance(code := self.configs.config.get("model_file"), str):
            self.problems.append(
                f"{CONFIG} names code to run (model_file: {shown(code)}): it is refused without --trust-remote-code"
            )
        if self.format == "hf" and self.configs.config.get("auto_map"):
            self.problems.append(
                f"{CONFIG} names code to run (auto_map), which is never run: the engine has to know the architecture"
            )

    @cached_property
    def vocabulary(self) -> FolderVocabulary | None:
        """The tokenizer's tokens, if the folder has a tokenizer."""
        return read_vocabulary(self.path)

    def name(self) -> str:
        return folder_name(self.path)

    def architecture(self) -> str:
        declared = [*self.configs.settings("model_type")]
        if (value := self.configs.genai.get("type")) is not None:
            declared.append(Found(value, f"{GENAI_CONFIG}: model.type"))
        found = next((found for found in declared if isinstance(found.value, str)), None)
        if found is None:
            self.problems.append(f"no architecture ({CONFIG}: model_type): no engine will load it")
            return "unknown"
        self.sources["architecture"] = found.source
        return found.value

    def context_length(self, architecture: str) -> int:
        declared = [*self.configs.settings(*_CONTEXT_KEYS)]
        if (value := self.configs.genai.get("context_length")) is not None:
            declared.insert(0, Found(value, f"{GENAI_CONFIG}: model.context_length"))
        for found in declared:
            if type(found.value) is int and 0 < found.value < 1 << 31:
                self.sources["context_length"] = found.source
                return found.value
            self.problems.append(f"{found.source} is {shown(found.value)}, no number of tokens: ignored")
        self.problems.append(f"no context length ({CONFIG}: max_position_embeddings): give one with --context")
        return 0

    def pooling(self, architecture: str) -> int | None:
        return None

    def parameters(self) -> int:
        if not self.weights.tensors:
            self.problems.append("no weights: only its settings and its tokenizer are here, and it cannot be run")
        return sum(tensor.parameters for tensor in self.weights.tensors)

    def file_type(self) -> str:
        is_declared = self.format == "mlx" and self.weights.quantization is not None
        self.sources["file_type"] = f"{CONFIG}: quantization" if is_declared else "tensor types"
        return self.weights.file_type

    def chat_templates(self) -> dict[str, str]:
        try:
            found = find_templates(self.path, dict(self.configs.files[TOKENIZER_CONFIG]))
        except ModelError as error:
            self.problems.append(f"{error}: left out")
            return {}
        if found.templates:
            self.sources["chat_templates"] = found.source
        return found.templates

    def check_vocabulary(self) -> None:
        if self.vocabulary is None:
            self.problems.append("no tokenizer (tokenizer.json or tokenizer.model): it cannot be run")
            return
        rows = self.configs.vocabulary_rows()
        if rows is not None and self.vocabulary.size > rows:
            self.problems.append(
                f"the tokenizer has {self.vocabulary.size} tokens and the model rows for {rows} (vocab_size): a text "
                f"with one of the others cannot be computed"
            )

    def token_id(self, field: str, name: str) -> int | None:
        """The id of the ``bos`` or ``eos`` token: what is really put before a text, the tokenizer's, the model's."""
        if name == "bos" and self.vocabulary is not None and self.vocabulary.first:
            self.sources[field] = self._surroundings_source("bos")
            return self.vocabulary.first[0]
        text = self._special_text(name)
        token_id = self.vocabulary.id_of(text.value) if text is not None and self.vocabulary is not None else None
        if text is not None and token_id is not None:
            self.sources[field] = text.source
            return token_id
        # A tokenizer.json whose tokenizer_config.json names no bos has none: templates write nothing for it then.
        if name == "bos" and text is None and self.vocabulary and self.configs.files[TOKENIZER_CONFIG]:
            return None
        found = next(self._declared_ids(f"{name}_token_id"), None)
        if found is None:
            return None
        self.sources[field] = found.source
        return found.value

    def _special_text(self, name: str) -> Found | None:
        for file in (TOKENIZER_CONFIG, SPECIAL_TOKENS):
            key = f"{name}_token"
            if (text := token_text(self.configs.files[file].get(key))) is not None:
                return Found(text, f"{file}: {key}")
        return None

    def _declared_ids(self, key: str) -> Iterator[Found]:
        """The ids at a key of every file that has it, those that the vocabulary has."""
        for found in self.configs.ids(key):
            for value in found.value if isinstance(found.value, list) else [found.value]:
                if self._is_token_id(value):
                    yield Found(value, found.source)
                else:
                    problem = f"{found.source} has {shown(value)}, which is no token of the vocabulary: ignored"
                    if problem not in self.problems:
                        self.problems.append(problem)

    def _is_token_id(self, value: Any) -> bool:
        sizes = [self.configs.vocabulary_rows() or 0, self.vocabulary.size if self.vocabulary else 0]
        return type(value) is int and 0 <= value < (max(sizes) or 1 << 31)

    def end_ids(self, eos_id: int | None) -> tuple[int, ...]:
        """The tokenizer's eos, and every id that a file declares as one."""
        sources = [self.sources["eos_id"]] if eos_id is not None else []
        ids = [] if eos_id is None else [eos_id]
        for found in self._declared_ids("eos_token_id"):
            ids.append(found.value)
            sources.append(found.source)
        if not ids:
            self.problems.append("no end-of-sequence token (eos_token_id): only texts end an answer")
        else:
            self.sources["eog_ids"] = ", ".join(dict.fromkeys(sources))
        return tuple(dict.fromkeys(ids))

    def add_bos(self) -> bool | None:
        if self.vocabulary is None:
            return None
        self.sources["add_bos"] = self._surroundings_source("bos")
        return bool(self.vocabulary.first)

    def _surroundings_source(self, name: str) -> str:
        description = self.vocabulary.description if self.vocabulary else None
        if description and description.get("post_processor"):
            return "tokenizer.json: post_processor"
        return f"{TOKENIZER_CONFIG}: add_{name}_token"

    def token_text(self, token_id: int | None) -> str | None:
        if token_id is None or self.vocabulary is None:
            return None
        return self.vocabulary.text(token_id)

    def is_token(self, text: str) -> bool | None:
        """Whether a token is written so; None where there is no vocabulary."""
        return None if self.vocabulary is None else self.vocabulary.id_of(text) is not None

    def stop_strings(self) -> tuple[str, ...]:
        value = self.configs.files[GENERATION_CONFIG].get("stop_strings")
        if value is None:
            return ()
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(stop, str) and stop for stop in found):
            self.problems.append(f"{GENERATION_CONFIG}: stop_strings is no text and no list of texts: ignored")
            return ()
        if found:
            self.sources["stop_strings"] = f"{GENERATION_CONFIG}: stop_strings"
        return tuple(dict.fromkeys(found))

    def sampling(self) -> dict[str, float]:
        """The sampling defaults, by the names of SamplingParams; none where the model is declared to be greedy."""
        file, values = GENERATION_CONFIG, self.configs.files[GENERATION_CONFIG]
        if not values and isinstance(search := self.configs.files[GENAI_CONFIG].get("search"), dict):
            file, values = f"{GENAI_CONFIG}: search", search
        if values.get("do_sample") is False:
            return {}
        found: dict[str, float] = {}
        for key, name in _SAMPLING_NAMES.items():
            if (stored := values.get(key)) is not None:
                try:
                    value = _number(stored, whole=key == "top_k")
                    replace(SamplingParams(), **{name: value})
                except (TypeError, ValueError, OverflowError, RequestError) as error:
                    self.problems.append(f"{file}: {key} is {shown(stored)}, {error}: ignored")
                else:
                    found[name] = value
        if found:
            self.sources["sampling"] = file
        return found


def _number(stored: Any, *, whole: bool) -> float:
    if isinstance(stored, bool) or not isinstance(stored, int | float):
        raise TypeError("which is no number")
    return max(0, int(stored)) if whole else float(stored)
