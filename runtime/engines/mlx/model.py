"""A model of mlx-lm, loaded: from an MLX folder, or from a checkpoint of transformers as it is."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from ...errors import ModelError
from ...json_file import read_json
from ...profile import ModelProfile
from ...safetensors_header import read_tensors
from . import caches
from .caches import Caches
from .hf_config import mlx_keys

if TYPE_CHECKING:
    import mlx.core as mx

_OUTPUT = "lm_head.weight"


class MlxModel:
    """``network`` computes logits of ``vocab_size`` columns at least; ``token_bytes`` is what a token takes in a cache.

    Loaded on any thread, used on one: mlx's streams belong to threads.
    """

    def __init__(self, network: Any) -> None:
        import mlx.core as mx

        self.network: Callable[..., mx.array] = network
        self._stream = mx.new_thread_local_stream(mx.default_device())
        self.vocab_size, self.token_bytes, self.can_batch, self.can_trim = self._measure()

    def stream(self) -> AbstractContextManager[Any]:
        """Where this thread computes."""
        import mlx.core as mx

        return mx.stream(self._stream)

    def new_caches(self) -> Caches:
        """The empty cache of a sequence."""
        from mlx_lm.models.cache import make_prompt_cache

        return make_prompt_cache(self.network)  # type: ignore[arg-type]  # a Module, which it declares

    def prefill(self, ids: list[int], own: Caches) -> None:
        """Add tokens to a cache; their logits are never computed."""
        import mlx.core as mx

        self.network(mx.array(ids, dtype=mx.uint32)[None], cache=own)
        mx.eval(caches.arrays(own))

    def logits(self, ids: list[int], own: Caches) -> "mx.array":
        """The same, and the logits after each of them: (tokens, vocabulary), float32."""
        import mlx.core as mx

        rows = self.network(mx.array(ids, dtype=mx.uint32)[None], cache=own)[0].astype(mx.float32)
        mx.eval(rows, caches.arrays(own))
        return rows

    @staticmethod
    def clear_cache() -> None:
        """Give memory back that mlx keeps for later."""
        import mlx.core as mx

        mx.clear_cache()

    def free(self) -> None:
        """Let the weights go."""
        self.network = gone
        self.clear_cache()

    @staticmethod
    def leave_thread() -> None:
        """The last thing that a thread does here: end what mlx has started for it."""
        import mlx.core as mx

        mx.clear_streams()

    def _measure(self) -> tuple[int, int, bool, bool]:
        """Run one token: what cannot run at all is found out now."""
        own = self.new_caches()
        with self.stream():
            rows = self.logits([0], own)
        capacity = max((cache.keys.shape[2] for cache in own if getattr(cache, "keys", None) is not None), default=1)
        return rows.shape[-1], max(1, caches.num_bytes(own) // capacity), caches.can_batch(own), caches.can_trim(own)


def gone(*_args: object, **_options: object) -> "mx.array":
    """What stands where a network was."""
    raise RuntimeError("the model has been freed")


def load_mlx(profile: ModelProfile, *, trust_remote_code: bool = False) -> MlxModel:
    """Load the model in the profile's folder. ModelError."""
    path = profile.path
    config = read_json(path / "config.json")
    if "model_file" in config and not trust_remote_code:
        raise ModelError(
            f"{path} brings its model as a Python file ({config['model_file']}), which would be run: look at it, and "
            "give --trust-remote-code if you trust it"
        )
    free = psutil.virtual_memory().available
    if profile.file_bytes > free:
        raise ModelError(f"{path} takes {profile.file_bytes / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free")
    try:
        return MlxModel(_network(path, config, trust_remote_code))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"mlx-lm cannot load {path}: {type(error).__name__}: {reason}") from error


def _network(path: Path, config: dict[str, Any], trust_remote_code: bool) -> Any:
    import mlx.core as mx
    from mlx_lm.utils import load_model

    is_quantized = "quantization" in config
    keys = {} if is_quantized or "model_file" in config else mlx_keys(config, has_output=_has_output(path))
    network, _ = load_model(
        path,
        model_config=keys,
        get_model_classes=_classes,
        trust_remote_code=trust_remote_code,
    )
    return _for_cpu(network) if is_quantized and mx.default_device() == mx.cpu else network


def _for_cpu(network: Any) -> Any:
    """Scales, norms and activations in float32: mlx's CPU kernels multiply packed weights with those eight times as
    fast as with bfloat16."""
    import mlx.core as mx

    network.set_dtype(mx.float32)
    mx.eval(network.parameters())
    return network


def _classes(config: dict[str, Any]) -> tuple[Any, Any]:
    """mlx-lm's model of this type, or ours where it has none."""
    if config.get("model_type") == "arcee":
        from . import arcee

        return arcee.Model, arcee.ModelArgs
    from mlx_lm.utils import _get_classes

    return _get_classes(config)


def _has_output(path: Path) -> bool:
    return any(_OUTPUT in read_tensors(file) for file in sorted(path.glob("model*.safetensors")))
