"""Fetch a model from the Hugging Face Hub, a GGUF file or a folder, through its own client and cache.

The listing's commit is what is downloaded, so that the parts of a model belong together even when somebody
pushes meanwhile. Without an answer from the Hub the newest copy in the cache serves.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, cast

from .checkpoint_files import CONFIG, checkpoint_names, folder_names, small_names
from .errors import ModelError
from .gguf_files import model_names, part_names, select_model
from .model_folder import FORMATS

logger = logging.getLogger(__name__)

PREFERRED_QUANTS = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "Q5_K_M", "Q5_K_S", "Q8_0")
"""What is taken where a repository has several and the user names none: small, and close to the original."""
_TIMEOUT_S = 10


def fetch_model(repo: str, quant: str | None, *, progress: bool, formats: Collection[str] = FORMATS) -> Path:
    """The model in the cache, downloaded if need be: the (first) GGUF file, or the folder of a model of another of the
    ``formats``, of which nothing is fetched that can run code. ModelError says why there is none."""
    wanted = _Wanted(repo, quant, formats)
    return _fetched(repo, lambda: _download(repo, wanted.names), lambda: _cached(wanted), progress)


def fetch_checkpoint(repo: str, *, progress: bool) -> Path:
    """The folder of the checkpoint in the cache, downloaded if need be: settings, tokenizer, templates and
    safetensors, and nothing that can run code. ModelError says why there is none."""

    def names(files: Collection[str]) -> list[str]:
        return checkpoint_names(files, repo)

    return _fetched(repo, lambda: _download(repo, names), lambda: _cached_folder(repo, names), progress)


def fetch_small_files(repo: str, *, progress: bool = True) -> Path:
    """The folder with the settings, the tokenizer and the templates of a model whose weights are elsewhere."""

    def names(files: Collection[str]) -> list[str]:
        if CONFIG not in files:
            raise ModelError(f"{repo} has no {CONFIG}, which says what the model is")
        return [CONFIG, *small_names(files)]

    return _fetched(repo, lambda: _download(repo, names), lambda: _cached_folder(repo, names), progress)


def _fetched(repo: str, download: Callable[[], Path], cached: Callable[[], Path], progress: bool) -> Path:
    """What ``download`` gives; where the Hub cannot be asked, what ``cached`` gives."""
    try:
        with _progress_bars(progress):
            return download()
    except _client_errors() as error:
        if refusal := _refusal(repo, error):
            raise ModelError(refusal) from error
        cause = _one_line(error)
        try:
            path = cached()
        except ModelError as missing:
            raise ModelError(
                f"no such file or folder: {repo}; read as a name on the Hub it cannot be fetched ({cause}), "
                f"and in the cache {missing}"
            ) from error
        logger.warning("%s cannot be fetched (%s): the cached copy is used", repo, cause)
        return path


class _Wanted(NamedTuple):
    """Which model of a repository is asked for."""

    repo: str
    quant: str | None
    formats: Collection[str]

    def is_gguf(self, models: Collection[str]) -> bool:
        """Whether one of these GGUF models is meant, or the lack of any is to be said."""
        folders = set(self.formats) - {"gguf"}
        return self.quant is not None or not folders or ("gguf" in self.formats and bool(models))

    def select(self, models: Sequence[str]) -> str:
        return select_model(models, self.repo, self.quant, PREFERRED_QUANTS)

    def names(self, files: Collection[str]) -> list[str]:
        """The files to fetch, the one first that tells where the model is. ModelError when there is none."""
        models = model_names(files)
        if not self.is_gguf(models):
            return folder_names(files, self.repo, self.formats)
        name = self.select(models)
        missing = [part for part in part_names(name) if part not in files]
        if missing:
            raise ModelError(f"the model {name} in {self.repo} is incomplete: {missing[0]} is missing")
        return part_names(name)


def _download(repo: str, names: Callable[[Collection[str]], list[str]]) -> Path:
    """The first of the files that ``names`` chooses; of a folder's files, the folder."""
    from huggingface_hub import HfApi, hf_hub_download

    listing = HfApi().model_info(repo, timeout=_TIMEOUT_S)
    chosen = names({file.rfilename for file in listing.siblings or ()})
    first, *_ = [Path(hf_hub_download(repo, name, revision=listing.sha)) for name in chosen]
    return first if model_names(chosen) else first.parent


def _cached(wanted: _Wanted) -> Path:
    """The model among the complete ones in the cache, the newest copy of each."""
    models: dict[str, Path] = {}
    for folder, files in _snapshots(wanted.repo):
        for name in model_names(files):
            if files.issuperset(part_names(name)):
                models.setdefault(name, folder / name)
    return models[wanted.select(list(models))] if wanted.is_gguf(models) else _cached_folder(wanted.repo, wanted.names)


def _cached_folder(repo: str, names: Callable[[Collection[str]], list[str]]) -> Path:
    """The newest copy in the cache that is complete."""
    for folder, files in _snapshots(repo):
        with suppress(ModelError):
            names(files)
            return folder
    raise ModelError(f"{repo} has no complete model")


def _snapshots(repo: str) -> list[tuple[Path, set[str]]]:
    """The copies of a repository in the cache, each with the files it has, the newest first."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        repos = ()
    ours = (found for found in repos if (found.repo_type, found.repo_id) == ("model", repo))
    copies = [snapshot for found in ours for snapshot in found.revisions]
    copies.sort(key=lambda copy: copy.last_modified, reverse=True)
    return [
        (copy.snapshot_path, {file.file_path.relative_to(copy.snapshot_path).as_posix() for file in copy.files})
        for copy in copies
    ]


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
