"""From what a user types to the profile of a model: a file, a folder, a name on the Hub, or the address of a vLLM."""

from .engines.registry import engine_kind
from .errors import ConfigError
from .model_folder import FORMATS
from .profile import ModelProfile, load_profile
from .resolve import resolve_model

REMOTE = ("vllm://", "vllms://")


def find_model(
    spec: str,
    *,
    engine: str | None = None,
    chat_template: str | None = None,
    tokenizer: str | None = None,
    progress: bool = True,
) -> ModelProfile:
    """The profile of the model that ``spec`` names, downloaded where it is on the Hub. ``tokenizer`` is where the
    tokenizer of a model behind an address is found. Raises ModelError or ConfigError."""
    if spec.startswith(REMOTE):
        from .engines.vllm.profile import remote_profile

        return remote_profile(spec, chat_template=chat_template, tokenizer=tokenizer)
    if tokenizer is not None:
        raise ConfigError(f"--tokenizer has no effect on {spec}, which has its own: leave it out")
    formats = engine_kind(engine).formats if engine else FORMATS
    return load_profile(resolve_model(spec, progress=progress, formats=formats), chat_template=chat_template)
