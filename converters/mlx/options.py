"""The types of an MLX folder, and what may be chosen about them."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from ...runtime.errors import ConversionError

GROUP_SIZES = (32, 64, 128)
"""How many neighbours share a scale and an offset, where that can be chosen."""


@dataclass(frozen=True, slots=True)
class MlxType:
    """``mode`` and ``bits`` as ``mlx.core.quantize`` takes them; no mode is bfloat16. The first group size is the
    default."""

    name: str
    mode: str | None
    bits: int
    group_sizes: tuple[int, ...]


_AFFINE_GROUPS = (64, 32, 128)
TYPES = {
    **{f"{bits}bit": MlxType(f"{bits}bit", "affine", bits, _AFFINE_GROUPS) for bits in (2, 3, 4, 5, 6, 8)},
    "mxfp4": MlxType("mxfp4", "mxfp4", 4, (32,)),
    "mxfp8": MlxType("mxfp8", "mxfp8", 8, (32,)),
    "nvfp4": MlxType("nvfp4", "nvfp4", 4, (16,)),
    "bf16": MlxType("bf16", None, 16, ()),
}


def mlx_type(name: str) -> MlxType:
    """The type of that name. ConversionError with the known ones."""
    wanted = name.lower()
    found = TYPES.get(wanted) or TYPES.get(f"{wanted}bit")
    if found is None:
        near = get_close_matches(wanted, TYPES, 1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise ConversionError(f"no MLX type is called {name!r}{hint}; types are {', '.join(TYPES)}")
    return found


@dataclass(frozen=True, slots=True)
class MlxOptions:
    """What to make. ``group_size`` None is the type's own. ConversionError for what does not exist."""

    type: str
    group_size: int | None = None

    def __post_init__(self) -> None:
        kind = mlx_type(self.type)
        if self.group_size is None or self.group_size in kind.group_sizes:
            return
        if not kind.group_sizes:
            raise ConversionError(
                f"--group-size {self.group_size} has no effect on mlx:{kind.name}, which has no groups"
            )
        allowed = " or ".join(map(str, sorted(kind.group_sizes)))
        raise ConversionError(f"--group-size {self.group_size}: mlx:{kind.name} has groups of {allowed}")

    @property
    def kind(self) -> MlxType:
        """The type itself."""
        return mlx_type(self.type)

    @property
    def recipe(self) -> dict[str, Any]:
        """For the proof file."""
        return {"group_size": self.chosen_group_size}

    @property
    def chosen_group_size(self) -> int | None:
        """Values that share a scale; None where there are no scales."""
        return self.group_size or next(iter(self.kind.group_sizes), None)
