"""From the ``[teacher]`` table of a recipe to a teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.errors import ConfigError, ModelError, TrainingError
from ...runtime.json_file import read_json
from .base import Say, Teacher
from .files import IDENTITY_FILE
from .fingerprint import fingerprint, is_here

if TYPE_CHECKING:
    from ..recipe.schema import Teacher as TeacherTable
    from .endpoint import Patience
    from .logit_cache import LogitCache, Source
    from .progress import Price

ResolveModel = Callable[[str], Path]


def open_teacher(
    table: TeacherTable,
    folder: Path,
    *,
    resolve_model: ResolveModel,
    student: Any = None,
    tokenizer: Any = None,
    device: Any = None,
    with_states: bool = False,
    needs_same_tokens: bool = True,
    needs_columns: Sequence[str] = (),
    say: Say,
    price: Price | None = None,
    patience: Patience | None = None,
) -> Teacher:
    """The teacher of a recipe. ``folder`` is where caches go unless the table names another.

    ``student`` (a model of transformers) and ``tokenizer`` are needed by teachers that have logits: their vocabularies
    must be the student's, unless nothing that is learnt needs it (not ``needs_same_tokens``) of an online teacher.
    ``needs_columns``: what each row must have, so that a text cache leaves out answers without it.
    ``device``: None is CUDA where there is one. Raises ConfigError and ModelError.
    """
    folder = Path(table.cache) if table.cache else folder
    if table.kind == "text-cache":
        from .text_cache import TextCache

        return TextCache(table, folder, needs_columns=needs_columns, say=say, price=price, patience=patience)
    if table.max_rows is not None:
        raise ConfigError("teacher.max_rows is for a text-cache: limit the data with data.max_rows")
    beside = _Beside(table, resolve_model, student, tokenizer, device, say)
    if table.kind == "online":
        return beside.online(with_states=with_states, needs_same_tokens=needs_same_tokens)
    if table.model or table.endpoint:
        return beside.logit_cache(folder, price, patience)
    from .logit_cache import LogitCache

    return LogitCache(folder, _brought(folder), None, say=say)


@dataclass(frozen=True)
class _Beside:
    """A teacher that has logits, beside the student that it is to teach."""

    table: TeacherTable
    resolve_model: ResolveModel
    student: Any
    tokenizer: Any
    device: Any
    say: Say

    def online(self, *, with_states: bool, needs_same_tokens: bool) -> Teacher:
        from .online import OnlineTeacher

        name = self.table.model
        assert name
        if name == "student":
            return OnlineTeacher(self._student_as_it_was(), name, with_states=with_states)
        model = self._load()
        if not needs_same_tokens and (foreigner := self._foreigner(model, name)):
            return foreigner
        return OnlineTeacher(model, name, with_states=with_states, vocab_size=self._common_vocabulary(model))

    def _foreigner(self, model: Any, name: str) -> Teacher | None:
        """The teacher, if its tokenizer is another one."""
        from .foreign import ForeignTeacher
        from .retelling import Retelling
        from .vocabularies import other_tokenizer

        theirs = other_tokenizer(self.resolve_model(name), self.tokenizer)
        if theirs is None:
            return None
        self.say(f"the teacher {name} has another tokenizer: it reads each text in its own tokens")
        return ForeignTeacher(model, name, Retelling(self.tokenizer, theirs))

    def logit_cache(self, folder: Path, price: Price | None, patience: Patience | None) -> LogitCache:
        from .logit_cache import LogitCache
        from .vocabularies import vocabulary_of

        table = self.table
        if table.sampled and table.endpoint:
            raise ConfigError(
                "teacher.sampled needs whole distributions, which an endpoint does not give: use teacher.model"
            )
        vocab_size = vocabulary_of(self.student)
        size = min(table.top_k, vocab_size)
        identity = {"model": table.model, "top_k": size, "sampled": table.sampled, "vocab_size": vocab_size}

        @cache
        def about() -> dict[str, Any]:
            assert table.model
            return {"sha256": fingerprint(self.resolve_model(table.model))}

        def source() -> Source:
            if table.endpoint:
                return self._endpoint(table.endpoint, size, patience)
            from .capture import ModelSource

            model = self._load()
            self._common_vocabulary(model)
            return ModelSource(model, size, sampled=table.sampled, vocab_size=vocab_size, about=about)

        can_look = table.model is not None and not table.endpoint and is_here(table.model)
        return LogitCache(folder, identity, source, say=self.say, price=price, about=about if can_look else None)

    def _endpoint(self, url: str, size: int, patience: Patience | None) -> Source:
        from .prompt_logprobs import EndpointSource, TokenNames

        names, table = TokenNames(self.tokenizer), self.table
        return EndpointSource(url, table.model, size, names, concurrency=table.concurrency, patience=patience)

    def _student_as_it_was(self) -> Any:
        from copy import deepcopy

        model = deepcopy(self.student)
        return model if self.device is None else model.to(self.device)

    def _common_vocabulary(self, model: Any) -> int:
        from .vocabularies import common_vocabulary

        assert self.table.model
        return common_vocabulary(model, self.student, self.resolve_model(self.table.model), self.tokenizer)

    def _load(self) -> Any:
        """The teacher's model. In float32 on a CPU, where half precision is slower and less exact."""
        import torch
        from transformers import AutoModelForCausalLM

        name = self.table.model
        assert name
        path = self.resolve_model(name)
        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = torch.float32 if device.type == "cpu" else getattr(torch, self.table.dtype)
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
            return model.to(device)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            said = " ".join(str(error).split())[:300]
            raise ModelError(f"the teacher {name} cannot be loaded: {said}") from error


def _brought(folder: Path) -> dict[str, Any]:
    path = folder / IDENTITY_FILE
    if not path.is_file():
        raise ConfigError(f"{folder} is no logit cache: there is no {IDENTITY_FILE} in it")
    found = read_json(path, TrainingError)
    if found.get("kind") != "logit-cache":
        raise ConfigError(f"{folder} is a {found.get('kind')}, and the recipe wants a logit-cache")
    return found
