"""The MLX engine; see ``engines.local`` for how it runs."""

import atexit
import logging

import psutil

from ...profile import ModelProfile
from ..base import Capabilities
from ..local.engine import LocalEngine
from .config import MlxConfig
from .model import MlxModel, load_mlx
from .scheduler import MlxScheduler

log = logging.getLogger(__name__)

_SHARE = 0.7
"""Of the memory that is free when the model is loaded, for caches."""
_KEPT_SHARE = 0.25
"""Of that, for the caches of sequences that have ended."""
_KEPT_CONTEXTS = 4


class MlxEngine(LocalEngine):
    """An MLX folder, or a checkpoint as it is, computed by mlx-lm; see ``engines.base.Engine``."""

    def __init__(self, profile: ModelProfile, config: MlxConfig | None = None) -> None:
        """Load the model (blocking). Raises ModelError."""
        from mlx_lm.utils import maybe_set_recommended_wired_limit

        from ...tokenizer.folder import open_tokenizer

        config = config or MlxConfig()
        super().__init__(config)
        self.tokenizer = tokenizer = open_tokenizer(profile)
        model = load_mlx(profile, trust_remote_code=config.trust_remote_code)
        tokenizer.limit(model.vocab_size)
        self._old_wired_limit = maybe_set_recommended_wired_limit()
        context_length = config.context_length(profile.context_length)
        if profile.context_length and context_length > profile.context_length:
            log.warning(
                "--context %d is more than the %d tokens the model was trained for",
                context_length,
                profile.context_length,
            )
        parallel = config.max_parallel if model.can_batch else 1
        self.capabilities = Capabilities("mlx", context_length, parallel, embeddings=False, grammar=False)
        room = int(_SHARE * psutil.virtual_memory().available)
        kept_bytes = min(int(_KEPT_SHARE * room), _KEPT_CONTEXTS * context_length * model.token_bytes)
        self.scheduler = MlxScheduler(
            model,
            vocab_size=tokenizer.vocab_size,
            eog_ids=self.tokenizer.eog_ids,
            max_parallel=parallel,
            batch_tokens=config.batch_tokens,
            most_tokens=(room - kept_bytes) // model.token_bytes,
            kept_bytes=kept_bytes,
        )
        self._start(self.scheduler)
        atexit.register(self.close)  # a thread of mlx's that Python leaves behind ends the process with an abort

    def stats(self) -> dict[str, int]:
        """See ``engines.base.Engine.stats``."""
        scheduler = self.scheduler
        return {
            **super().stats(),
            "preempted": scheduler.num_preempted,
            "kept_prefixes": len(scheduler.prefixes),
            "kept_bytes": scheduler.prefixes.num_bytes,
        }

    def _on_worker_exit(self, error: Exception | None) -> None:
        MlxModel.leave_thread()
        super()._on_worker_exit(error)

    def _free(self) -> None:
        import mlx.core as mx

        atexit.unregister(self.close)
        self.scheduler.free()
        if self._old_wired_limit is not None:
            mx.set_wired_limit(self._old_wired_limit)
            self._old_wired_limit = None
