"""The profile of a model: what the runtime has to know about it, where each value came from, what is wrong.

A value is declared by the model or derived from its chat template; nothing is guessed from a model's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from .chat.builtin import BUILTIN_NAMES, builtin_source
from .chat.end_of_turn import derive_end_of_turn
from .chat.markers import reasoning_markers, tool_call_markers
from .chat.template import ChatTemplate
from .errors import ConfigError, ModelError, RequestError
from .facts import Facts, read_facts

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """What travels with a model. ``sources`` has per field where it came from, ``problems`` what is wrong.

    ``path`` is the (first) GGUF file, or the folder of another ``format``: "hf", "mlx", "onnx".
    ``context_length`` 0 means not declared. ``eog_ids`` are the declared ends of generation: eos, eot, eom.
    ``end_of_turn`` is text; ``reasoning`` and ``tool_call`` are the markers that open and close such a part.
    ``sampling`` has the defaults that the model carries, by the names of SamplingParams.
    """

    name: str
    path: Path
    format: str
    architecture: str
    context_length: int
    parameters: int
    file_bytes: int
    file_type: str
    chat_templates: Mapping[str, str] = field(default_factory=dict)
    bos_token: str | None = None
    eos_token: str | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    add_bos: bool | None = None
    eog_ids: tuple[int, ...] = ()
    end_of_turn: str | None = None
    stop_strings: tuple[str, ...] = ()
    reasoning: tuple[str, str] | None = None
    tool_call: tuple[str, str] | None = None
    pooling: int | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def load_profile(path: str | Path, *, chat_template: str | None = None) -> ModelProfile:
    """The profile of the model at ``path``: a GGUF file, any of its parts, or the folder of another format.

    ``chat_template``, a built-in name or a .jinja file, replaces all templates of the model. ModelError when
    a file cannot be read or is damaged, ConfigError when there is no such template.
    """
    facts = read_facts(Path(path))
    architecture = facts.architecture()
    facts.check_vocabulary()
    bos_id, eos_id = facts.token_id("bos_id", "bos"), facts.token_id("eos_id", "eos")
    bos_token, eos_token = facts.token_text(bos_id), facts.token_text(eos_id)
    eog_ids = facts.end_ids(eos_id)
    templates = _chat_templates(facts, chat_template, bos_token, eos_token)
    template = templates.get("default")
    return ModelProfile(
        name=facts.name(),
        path=facts.path,
        format=facts.format,
        architecture=architecture,
        context_length=facts.context_length(architecture),
        parameters=facts.parameters(),
        file_bytes=facts.file_bytes,
        file_type=facts.file_type(),
        chat_templates={name: found.source for name, found in templates.items()},
        bos_token=bos_token,
        eos_token=eos_token,
        bos_id=bos_id,
        eos_id=eos_id,
        add_bos=facts.add_bos(),
        eog_ids=eog_ids,
        end_of_turn=_end_of_turn(facts, template, eog_ids),
        stop_strings=facts.stop_strings(),
        reasoning=_derived(facts, "reasoning", reasoning_markers(template.source) if template else None),
        tool_call=_derived(facts, "tool_call", tool_call_markers(template.source) if template else None),
        pooling=facts.pooling(architecture),
        sampling=facts.sampling(),
        sources=facts.sources,
        problems=tuple(" ".join(problem.split()) for problem in facts.problems),
    )


def _chat_templates(
    facts: Facts, choice: str | None, bos_token: str | None, eos_token: str | None
) -> dict[str, ChatTemplate]:
    """The chosen template, or else those of the model that are valid Jinja."""
    if choice is not None:
        source, facts.sources["chat_templates"] = _chosen_source(choice)
        return {"default": ChatTemplate(source, bos_token=bos_token, eos_token=eos_token, name=choice)}
    templates: dict[str, ChatTemplate] = {}
    for name, source in facts.chat_templates().items():
        try:
            templates[name] = ChatTemplate(source, bos_token=bos_token, eos_token=eos_token, name=name)
        except ModelError as error:
            facts.problems.append(f"{error}: left out")
    return templates


def _chosen_source(choice: str) -> tuple[str, str]:
    """The source of a template that the user chose, and what to call where it came from."""
    path = Path(choice)
    if choice in BUILTIN_NAMES or (not path.suffix and not path.is_file()):
        return builtin_source(choice), f"built-in template {choice}"
    try:
        return path.read_text(encoding="utf-8"), f"file {choice}"
    except UnicodeDecodeError:
        raise ConfigError(f"the chat template {choice} is no UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"cannot read the chat template {choice}: {error.strerror}") from error


def _end_of_turn(facts: Facts, template: ChatTemplate | None, eog_ids: tuple[int, ...]) -> str | None:
    if template is None:
        names = ", ".join(BUILTIN_NAMES)
        facts.problems.append(f"no chat template: choose one with --chat-template ({names} or a file)")
        return None
    try:
        template.render([{"role": "user", "content": "Hello"}])
    except RequestError as error:
        facts.problems.append(f"one plain question cannot be rendered: {error}")
    found = _derived(facts, "end_of_turn", derive_end_of_turn(template))
    if found is None:
        facts.problems.append("the chat template shows no end of turn: only end-of-generation tokens end it")
    else:
        _check_others_stop(facts, found, eog_ids)
    return found


def _check_others_stop(facts: Facts, end_of_turn: str, eog_ids: tuple[int, ...]) -> None:
    """Whether programs that know only tokens stop at the end of turn too."""
    is_token = facts.is_token(end_of_turn)
    if is_token is None or end_of_turn in map(facts.token_text, eog_ids):
        return
    if is_token and end_of_turn in facts.ends_elsewhere:
        return
    what = "a token not declared as end of generation" if is_token else "not a single token"
    facts.problems.append(
        f"the end of turn {end_of_turn!r} is {what}: tapster stops at its text, "
        f"other programs run on unless they are given it as a stop string"
    )


def _derived(facts: Facts, name: str, value: Value) -> Value:
    if value is not None:
        facts.sources[name] = "derived from the chat template"
    return value
