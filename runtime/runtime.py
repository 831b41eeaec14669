"""One loaded model, ready to answer: templates in front of an engine, text behind it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .chat.markers import is_inside_reasoning, opens_reasoning
from .chat.template import ChatTemplate
from .engines.base import Engine
from .engines.config import EngineConfig
from .engines.registry import choose_engine
from .errors import ContextOverflow, EngineError, RequestError
from .models import find_model
from .profile import ModelProfile
from .sampling import MAX_SEED, SamplingParams
from .text.scanner import Rules
from .text.stream import TextStream

DEFAULT_SAMPLING: Mapping[str, float] = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
"""For what neither the request nor the model says; llama.cpp's own defaults."""


@dataclass(frozen=True, slots=True)
class PreparedChat:
    """A conversation as the engine gets it; see ``Runtime.prepare``."""

    ids: list[int]
    starts_in_reasoning: bool


class Runtime:
    """A model and everything needed to talk with it. Use it on one event loop.

    Every request is checked before anything runs: RequestError, ContextOverflow, Overloaded and EngineError are
    raised by the call, not by the stream it returns.
    """

    def __init__(self, profile: ModelProfile, engine: Engine) -> None:
        self.profile = profile
        self.engine = engine
        self._templates = {
            name: ChatTemplate(source, bos_token=profile.bos_token, eos_token=profile.eos_token, name=name)
            for name, source in profile.chat_templates.items()
        }

    @classmethod
    def open(
        cls,
        model: str | Path,
        *,
        engine: str | None = None,
        chat_template: str | None = None,
        config: EngineConfig | None = None,
        progress: bool = True,
    ) -> "Runtime":
        """Find, check and load a model (blocking). ``engine`` names one, where the format leaves a choice; ``config``
        is its settings. Raises ModelError or ConfigError."""
        profile = find_model(str(model), engine=engine, chat_template=chat_template, progress=progress)
        return cls.load(profile, config, engine=engine)

    @classmethod
    def load(cls, profile: ModelProfile, config: EngineConfig | None = None, *, engine: str | None = None) -> "Runtime":
        """Load a model whose profile was read already (blocking)."""
        return cls(profile, choose_engine(profile.format, engine).open(profile, config))

    @property
    def has_chat_template(self) -> bool:
        """Whether messages can be rendered."""
        return "default" in self._templates

    def template_for(self, tools: object = None) -> ChatTemplate:
        """The template that renders a conversation: with tools the model's ``tool_use`` one, where it has one."""
        template = self._templates.get("tool_use") if tools else None
        template = template or self._templates.get("default")
        if template is None:
            raise RequestError(
                f"{self.profile.name} has no chat template: use /v1/completions, or serve it with --chat-template "
                "(a built-in name or a .jinja file)",
                param="messages",
            )
        return template

    def default_params(self, **overrides: Any) -> SamplingParams:
        """Sampling parameters: the overrides that are not None, then the model's defaults, then tapster's."""
        given = {name: value for name, value in overrides.items() if value is not None}
        return SamplingParams(**{**DEFAULT_SAMPLING, **self.profile.sampling, **given})

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt of a conversation, by the model's chat template."""
        return self.template_for(tools).render(
            [dict(message) for message in messages],
            add_generation_prompt=add_generation_prompt and not continue_final_message,
            continue_final_message=continue_final_message,
            tools=[dict(tool) for tool in tools] if tools else None,
            documents=[dict(document) for document in documents] if documents else None,
            **(template_kwargs or {}),
        )

    def prepare(self, messages: Sequence[Mapping[str, Any]], **template_options: Any) -> PreparedChat:
        """The first half of ``chat``, which takes seconds for megabytes of text. Any thread may do it."""
        prompt = self.render(messages, **template_options)
        ids = self.engine.tokenizer.encode(prompt, add_special=self._adds_bos(prompt))
        markers = self.profile.reasoning
        if template_options.get("continue_final_message"):
            return PreparedChat(ids, is_inside_reasoning(str(messages[-1].get("content")), markers))
        return PreparedChat(ids, opens_reasoning(prompt, markers))

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]] | PreparedChat,
        params: SamplingParams,
        *,
        stop: Sequence[str] = (),
        n: int = 1,
        include_stop: bool = False,
        **template_options: Any,
    ) -> list[TextStream]:
        """Answer a conversation ``n`` times. ``template_options`` are those of ``render``."""
        prompt = messages if isinstance(messages, PreparedChat) else self.prepare(messages, **template_options)
        rules = self._rules(stop, self.profile.reasoning, prompt.starts_in_reasoning)
        return self._start(prompt.ids, params, rules, n, include_stop, "messages")

    def complete(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams,
        *,
        stop: Sequence[str] = (),
        n: int = 1,
        include_stop: bool = False,
    ) -> list[TextStream]:
        """Continue a text, or token ids as they are, ``n`` times."""
        ids = self.engine.tokenizer.encode(prompt, add_special=True) if isinstance(prompt, str) else list(prompt)
        return self._start(ids, params, self._rules(stop, None, False), n, include_stop, "prompt")

    async def embed(self, ids: Sequence[int]) -> list[float]:
        """The embedding of a token sequence, of unit length."""
        return await self.engine.embed(ids)

    def stats(self) -> dict[str, int]:
        """Counts of what the engine is doing now."""
        return self.engine.stats()

    @property
    def failed(self) -> EngineError | None:
        """Why the engine is gone, once it is."""
        return self.engine.failed

    def on_failure(self, callback: Callable[[EngineError], None]) -> None:
        """Call back on the event loop when the engine fails."""
        self.engine.on_failure(callback)

    def abort(self) -> None:
        """End every request that waits or runs with an EngineError that says so."""
        self.engine.abort()

    def close(self) -> None:
        """Stop the engine and free the model."""
        self.engine.close()

    def _adds_bos(self, prompt: str) -> bool:
        """Most templates write the beginning-of-text token out; then the tokenizer must not add another."""
        bos = self.profile.bos_token
        return not (bos and prompt.startswith(bos))

    def _rules(self, stop: Sequence[str], reasoning: tuple[str, str] | None, starts_in_reasoning: bool) -> Rules:
        own = {*self.profile.stop_strings, self.profile.end_of_turn or ""} - {""}
        return Rules(frozenset(own), frozenset(stop), reasoning, starts_in_reasoning)

    def _start(
        self, ids: list[int], params: SamplingParams, rules: Rules, n: int, include_stop: bool, param: str
    ) -> list[TextStream]:
        streams: list[TextStream] = []
        try:
            for index in range(n):
                seed = None if params.seed is None else (params.seed + index) % (MAX_SEED + 1)
                stream = TextStream(
                    self.engine.generate(ids, replace(params, seed=seed)),
                    self.engine.tokenizer,
                    rules,
                    num_prompt_tokens=len(ids),
                    wants_tokens=params.top_logprobs is not None,
                    includes_stop=include_stop,
                )
                streams.append(stream)
        except ContextOverflow as error:
            raise ContextOverflow(error.prompt_tokens, error.context_length, param) from None
        except BaseException:
            for stream in streams:
                stream.cancel()
            raise
        return streams
