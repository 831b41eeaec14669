"""Fetch a GGUF model from the Hugging Face Hub, through its own client and cache.

The listing's commit is what is downloaded, so that the parts of a model belong together even when somebody
pushes meanwhile. Without an answer from the Hub the newest copy in the cache serves.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from .errors import ModelError
from .gguf_files import model_names, part_names, select_model

logger = logging.getLogger(__name__)

PREFERRED_QUANTS = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "Q5_K_M", "Q5_K_S", "Q8_0")
"""What is taken where a repository has several and the user names none: small, and close to the original."""
_TIMEOUT_S = 10


def fetch_model(repo: str, quant: str | None, *, progress: bool) -> Path:
    """The model's (first) file in the cache, downloaded if need be. ModelError says why there is none."""
    try:
        with _progress_bars(progress):
            return _download(repo, quant)
    except _client_errors() as error:
        if refusal := _refusal(repo, error):
            raise ModelError(refusal) from error
        cause = _one_line(error)
        try:
            path = _cached(repo, quant)
        except ModelError as missing:
            raise ModelError(
                f"no such file or folder: {repo}; read as a name on the Hub it cannot be fetched ({cause}), "
                f"and in the cache {missing}"
            ) from error
        logger.warning("%s cannot be fetched (%s): the cached copy is used", repo, cause)
        return path


def _download(repo: str, quant: str | None) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    listing = HfApi().model_info(repo, timeout=_TIMEOUT_S)
    names = [file.rfilename for file in listing.siblings or ()]
    name = select_model(model_names(names), repo, quant, PREFERRED_QUANTS)
    missing = [part for part in part_names(name) if part not in names]
    if missing:
        raise ModelError(f"the model {name} in {repo} is incomplete: {missing[0]} is missing")
    paths = [hf_hub_download(repo, part, revision=listing.sha) for part in part_names(name)]
    return Path(paths[0])


def _cached(repo: str, quant: str | None) -> Path:
    """The model among the complete ones in the cache, the newest copy of each."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        repos = ()
    ours = (found for found in repos if (found.repo_type, found.repo_id) == ("model", repo))
    snapshots = [snapshot for found in ours for snapshot in found.revisions]
    models: dict[str, Path] = {}
    for snapshot in sorted(snapshots, key=lambda copy: copy.last_modified, reverse=True):
        names = {file.file_path.relative_to(snapshot.snapshot_path).as_posix() for file in snapshot.files}
        for name in model_names(names):
            if names.issuperset(part_names(name)):
                models.setdefault(name, snapshot.snapshot_path / name)
    return models[select_model(list(models), repo, quant, PREFERRED_QUANTS)]


def _client_errors() -> tuple[type[Exception], ...]:
    """What the client raises where it gets no good answer: OSError, and the root of its HTTP library's errors.

    Which library that is (httpx, httpx2) depends on the client's version; its own error is a child of both.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    return (*cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__), HFValidationError)


def _refusal(repo: str, error: Exception) -> str | None:
    """Why the Hub will not give us this model, as long as nothing changes; None when it may later."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    if isinstance(error, HFValidationError):
        return f"{repo} is neither a file or folder here nor a possible name on the Hub"
    if isinstance(error, GatedRepoError):
        return f"{repo} is gated: accept its terms on its page on the Hub, then log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return f"{repo} is neither a file or folder here nor on the Hub (if it is private: `hf auth login`)"
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        return f"the Hub refuses access to {repo}: log in with `hf auth login`, with a token that may read it"
    return None


def _one_line(error: Exception) -> str:
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 150 else text[:147] + "..."


@contextmanager
def _progress_bars(wanted: bool) -> Iterator[None]:
    """The client shows its progress bars when standard error is a terminal; not wanted, they stay off."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if wanted or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
