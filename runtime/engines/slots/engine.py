"""What the engines over a slot model have in common."""

import logging

from ...tokenizer.folder import FolderTokenizer
from ..base import Capabilities
from ..config import EngineConfig
from ..local.engine import LocalEngine
from .model import SlotModel
from .scheduler import SlotScheduler

log = logging.getLogger(__name__)


class SlotEngine(LocalEngine):
    """An engine whose model is a ``SlotModel``. A subclass's constructor ends with ``_run``."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self._model: SlotModel | None = None

    def _run(self, name: str, model: SlotModel, tokenizer: FolderTokenizer, context_length: int) -> None:
        """Start to serve the model, which this engine closes."""
        self._model, self.tokenizer = model, tokenizer
        tokenizer.limit(model.vocab_size)
        parallel = min(self._config.max_parallel, model.num_slots)
        if parallel < self._config.max_parallel:
            log.warning("the memory holds %d sequences at once, not %d", parallel, self._config.max_parallel)
        self.capabilities = Capabilities(name, context_length, parallel, embeddings=False, grammar=False)
        self.scheduler = SlotScheduler(
            model,
            vocab_size=tokenizer.vocab_size,
            eog_ids=tokenizer.eog_ids,
            max_parallel=parallel,
            batch_tokens=self._config.batch_tokens,
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
