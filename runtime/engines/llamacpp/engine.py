"""A GGUF model in this process, run by llama.cpp."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from ...errors import ModelError
from ...sampling import SamplingParams
from ..base import Capabilities
from ..local.engine import LocalEngine
from ..local.sampler import Sampler
from ..local.threads import FixedThreads, ThreadTuner, default_threads
from .cache import CellCache
from .config import LlamaCppConfig
from .context import LlamaContext
from .embedder import Embedder
from .library import llama, load_model
from .scheduler import Scheduler
from .tokenizer import LlamaTokenizer

if TYPE_CHECKING:
    from ...profile import ModelProfile

log = logging.getLogger(__name__)

_KEPT_PREFIXES = 48


class LlamaCppEngine(LocalEngine):
    """See ``engines.base.Engine``."""

    def __init__(self, profile: "ModelProfile", config: LlamaCppConfig | None = None) -> None:
        """Load the model (blocking). Raises ModelError."""
        config = config or LlamaCppConfig()
        super().__init__(config)
        self._lib = llama()
        self._model: Any = load_model(profile.path, config.gpu_layers)
        self._context: LlamaContext | None = None
        try:
            self._open(profile.path, config, profile.pooling)
        except BaseException:
            self._free()
            raise

    def _open(self, path: Path, config: LlamaCppConfig, pooling: int | None) -> None:
        lib, model = self._lib, self._model
        self.tokenizer = self._vocabulary = LlamaTokenizer(model)
        if lib.llama_model_has_encoder(model) or not lib.llama_model_has_decoder(model):
            raise ModelError(f"{path} is an encoder: it cannot generate, and tapster serves generative models")
        trained = lib.llama_model_n_ctx_train(model)
        context_length = config.context_length(trained)
        if trained and context_length > trained:
            log.warning("--context %d is more than the %d tokens the model was trained for", context_length, trained)
        is_shareable = not (lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model))
        max_seqs = config.max_parallel + 1 + (_KEPT_PREFIXES if is_shareable else 0)
        threads = config.threads or default_threads()
        self._check_memory(config.num_cells(context_length))
        self._context = context = LlamaContext(
            model,
            cells=config.num_cells(context_length),
            max_seqs=max_seqs,
            batch_tokens=config.batch_tokens,
            num_threads=threads,
        )
        self.tuner = FixedThreads(threads) if config.threads else ThreadTuner(threads)
        self.cache = CellCache(
            context,
            max_seqs,
            is_shareable=is_shareable,
            most_parked=context.cells // 4 if config.kept is None else config.kept,
        )
        self.scheduler = Scheduler(
            context,
            self.cache,
            self.tuner,
            eog_ids=self.tokenizer.eog_ids,
            max_parallel=config.max_parallel,
            batch_tokens=config.batch_tokens,
        )
        self.capabilities = Capabilities("llama.cpp", context_length, config.max_parallel)
        embedder = Embedder(context, self.cache, pooling, self.scheduler.side_budget)
        self._start(self.scheduler, tuner=self.tuner, embedder=embedder)

    def _check_memory(self, cells: int) -> None:
        """Refuse a cache that cannot fit, instead of being killed for it. Keys and values are 16 bit."""
        lib, model = self._lib, self._model
        heads = max(1, lib.llama_model_n_head(model))
        width = lib.llama_model_n_embd(model) // heads * lib.llama_model_n_head_kv(model)
        needed = cells * lib.llama_model_n_layer(model) * 2 * width * 2
        free = psutil.virtual_memory().available
        if needed > free:
            raise ModelError(
                f"a cache of {cells} tokens takes {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free: "
                "lower --cells or --context"
            )

    def _sampler(self, params: SamplingParams) -> Sampler:
        return Sampler(
            params,
            vocab_size=self.tokenizer.vocab_size,
            eog_ids=self.tokenizer.eog_ids,
            context_length=self.capabilities.context_length,
            grammar_vocab=self._vocabulary.handle,
        )

    def stats(self) -> dict[str, int]:
        """See ``engines.base.Engine.stats``."""
        return {
            **super().stats(),
            "preempted": self.scheduler.num_preempted,
            "cells_used": self.cache.used,
            "cells_total": self.cache.total,
            "kept_prefixes": self.cache.num_idle + self.cache.num_parked,
            "threads": self.tuner.current,
        }

    def _free(self) -> None:
        if self._context:
            self._context.close()
            self._context = None
        if self._model:
            self._vocabulary.handle = None
            self._lib.llama_model_free(self._model)
            self._model = None
