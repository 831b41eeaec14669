"""The ONNX engine; see ``engines.slots`` for how it runs."""

from ...profile import ModelProfile
from ...tokenizer.folder import open_tokenizer
from ..slots.engine import SlotEngine
from .config import OnnxConfig
from .open_model import open_model


class OnnxEngine(SlotEngine):
    """A folder with an ONNX graph in this process; see ``engines.base.Engine``."""

    def __init__(self, profile: ModelProfile, config: OnnxConfig | None = None) -> None:
        """Load the model (blocking). Raises ModelError."""
        config = config or OnnxConfig()
        super().__init__(config)
        context_length = config.context_length(profile.context_length)
        tokenizer = open_tokenizer(profile)
        model = open_model(
            profile.path, context_length=context_length, parallel=config.max_parallel, threads=config.threads
        )
        self._run("onnx", model, tokenizer, context_length)
