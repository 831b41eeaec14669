"""The transformers engine; see ``engines.slots`` for how it runs."""

from ...profile import ModelProfile
from ...tokenizer.folder import open_tokenizer
from ..slots.engine import SlotEngine
from .config import TransformersConfig
from .open_model import open_model


class TransformersEngine(SlotEngine):
    """A checkpoint folder in this process, computed by PyTorch; see ``engines.base.Engine``."""

    def __init__(self, profile: ModelProfile, config: TransformersConfig | None = None) -> None:
        """Load the model (blocking). Raises ModelError, or ConfigError for a device that is not there."""
        config = config or TransformersConfig()
        super().__init__(config)
        context_length = config.context_length(profile.context_length)
        tokenizer = open_tokenizer(profile)
        model = open_model(profile.path, config, context_length=context_length, parallel=config.max_parallel)
        self._run("transformers", model, tokenizer, context_length)
