"""What a served model has to hold in memory: its file and its KV cache."""

from pathlib import Path

from ...runtime.gguf_header import read_header
from .own_server import OwnServer
from .replay import CACHE_CELLS
from .results import MemoryResult

_BYTES_PER_VALUE = 2  # llama.cpp keeps keys and values as 16-bit floats unless told otherwise


def measure_memory(server: OwnServer, path: Path, started_bytes: int, *, is_default: bool) -> MemoryResult:
    """The server's memory now, beside what it cannot do without.

    Only a server with its default settings (``is_default``) is known to have a cache of ``CACHE_CELLS``.
    """
    return MemoryResult(
        started_bytes=started_bytes,
        ended_bytes=server.memory_bytes(),
        model_bytes=path.stat().st_size,
        cache_bytes=cache_bytes(path, CACHE_CELLS) if is_default else None,
        cache_cells=CACHE_CELLS,
    )


def cache_bytes(path: Path, cells: int) -> int | None:
    """Bytes of a KV cache of ``cells`` tokens; None when the header does not say."""
    metadata = read_header(path).metadata
    prefix = f"{metadata.get('general.architecture')}."
    layers = metadata.get(f"{prefix}block_count")
    heads = metadata.get(f"{prefix}attention.head_count")
    width = metadata.get(f"{prefix}embedding_length")
    kv_heads = metadata.get(f"{prefix}attention.head_count_kv", heads)
    if not (isinstance(layers, int) and isinstance(heads, int) and isinstance(width, int)) or not heads:
        return None
    key_width = metadata.get(f"{prefix}attention.key_length", width // heads)
    value_width = metadata.get(f"{prefix}attention.value_length", width // heads)
    all_kv_heads = sum(kv_heads) if isinstance(kv_heads, list) else layers * kv_heads
    return cells * all_kv_heads * (key_width + value_width) * _BYTES_PER_VALUE
