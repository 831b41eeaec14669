"""Which GGUF files are a model: the parts it was split into, its quantizations, and what is no model at all.

The file names say it (``name-Q4_K_M.gguf``, ``name-Q8_0-00001-of-00003.gguf``, ``mmproj-name.gguf``),
so the same rules serve a folder and a repository on the Hub.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from .errors import ModelError
from .gguf_header import GGUFHeader, read_header

_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_NO_MODEL = re.compile(r"mmproj|imatrix", re.IGNORECASE)
_QUANT = re.compile(
    r"(?<![a-z0-9])(?:ud-)?(?:i?q\d\w*|tq\d_\d|mxfp4\w*|nvfp4|bf16|fp?16|fp?32)(?![a-z0-9_])", re.IGNORECASE
)
_SHOWN_AT_MOST = 20


def part_names(name: str) -> list[str]:
    """All files of the model that ``name`` is one of, in order; only ``name`` itself when it is whole."""
    found = _PART.search(name)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        return [name]
    stem, count = name[: found.start()], int(found[2])
    return [f"{stem}-{number:05}-of-{count:05}{name[-5:]}" for number in range(1, count + 1)]


def model_names(names: Iterable[str]) -> list[str]:
    """The models among some files, sorted; one in several parts by the name of its first. Without what only
    goes with a model: vision projectors (mmproj) and importance matrices."""
    models = (name for name in names if name.lower().endswith(".gguf") and not _NO_MODEL.search(_base(name)))
    return sorted({part_names(name)[0] for name in models})


def select_model(names: Sequence[str], where: str, quant: str | None, preferred: Sequence[str] = ()) -> str:
    """The one model that ``quant`` names: a quantization, another whole word of the file name, or all of it.
    Without ``quant`` the only one, or the first of the ``preferred`` quantizations that is there."""
    if not names:
        raise ModelError(f"{where} has no GGUF model")
    if quant is None:
        found = list(names) if len(names) == 1 else _first_preferred(names, preferred)
    else:
        found = _matching(names, quant)
    if len(found) == 1:
        return found[0]
    named = "" if quant is None else f" named {quant!r}"
    labels = _labels(found or names)
    shown = ", ".join(labels[:_SHOWN_AT_MOST]) + (", …" if len(labels) > _SHOWN_AT_MOST else "")
    what = f"several GGUF models{named}:" if found else f"no GGUF model{named}, but"
    raise ModelError(f"{where} has {what} {shown}; name one, as in {where}:{labels[0]}")


def existing_parts(path: Path) -> list[Path]:
    """The files of the model at ``path``, in order. ModelError when a part is missing."""
    parts = [path.with_name(name) for name in part_names(path.name)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing and len(parts) == 1:
        raise ModelError(f"no such file: {path}")
    if missing:
        raise ModelError(f"the model {path} is incomplete: {', '.join(missing[:3])} of {len(parts)} parts missing")
    return parts


def read_parts(path: Path) -> list[GGUFHeader]:
    """The headers of all files of the model at ``path``, the first part (which has the metadata) first."""
    headers = [read_header(part) for part in existing_parts(path)]
    for idx, header in enumerate(headers):
        place, count = header.metadata.get("split.no", 0), header.metadata.get("split.count", 0) or 1
        if (place, count) != (idx, len(headers)):
            raise ModelError(
                f"{header.path} says it is part {place} (from 0) of {count}, but by its name it is {idx} of "
                f"{len(headers)}: give the parts their own names back, or download them again"
            )
    return headers


def _first_preferred(names: Sequence[str], preferred: Sequence[str]) -> list[str]:
    return next((found for quant in preferred if (found := _matching(names, quant))), list(names))


def _matching(names: Sequence[str], quant: str) -> list[str]:
    wanted = quant.lower()
    exact = [name for name in names if wanted in (name.lower(), _base(name).lower(), _label(name).lower())]
    word = re.compile(rf"(?<![a-z0-9]){re.escape(wanted)}(?![a-z0-9_])")
    return exact or [name for name in names if word.search(name.lower())]


def _labels(names: Sequence[str]) -> list[str]:
    """What tells the models apart in a message: their quantizations; their names where those are the same."""
    labels = [_label(name) for name in names]
    return labels if len(set(labels)) == len(labels) else list(names)


def _label(name: str) -> str:
    quants = _QUANT.findall(_base(name))
    return quants[-1] if quants else _base(name)


def _base(name: str) -> str:
    return PurePosixPath(name).name
