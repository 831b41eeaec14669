"""What the engines over a slot model have in common."""

from ...errors import ModelError
from ..base import Capabilities, Tokenizer
from ..config import EngineConfig
from ..local.engine import LocalEngine
from .model import SlotModel
from .scheduler import SlotScheduler


class SlotEngine(LocalEngine):
    """An engine whose model is a ``SlotModel``. A subclass's constructor ends with ``_run``."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self._model: SlotModel | None = None

    def _run(self, name: str, model: SlotModel, tokenizer: Tokenizer, context_length: int) -> None:
        """Start to serve the model, which this engine closes."""
        self._model, self.tokenizer = model, tokenizer
        if tokenizer.vocab_size > model.vocab_size:
            self._free()
            raise ModelError(
                f"the tokenizer has {tokenizer.vocab_size} tokens and the model computes {model.vocab_size}: the files "
                "in the folder do not belong together"
            )
        parallel = min(self._config.max_parallel, model.num_slots)
        self.capabilities = Capabilities(name, context_length, parallel, embeddings=False, grammar=False)
        self.scheduler = SlotScheduler(
            model, eog_ids=tokenizer.eog_ids, max_parallel=parallel, batch_tokens=self._config.batch_tokens
        )
        self._start(self.scheduler)

    def stats(self) -> dict[str, int]:
        """See ``engines.base.Engine.stats``."""
        table = self.scheduler.table
        return {**super().stats(), "cells_used": table.num_used, "kept_prefixes": table.num_idle}

    def _free(self) -> None:
        if self._model:
            self._model.close()
        self._model = None
