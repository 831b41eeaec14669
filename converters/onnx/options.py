"""What to write: the type of the weights, and how they are quantized."""

from dataclasses import dataclass
from typing import Any

from ...runtime.errors import ConversionError

TYPES = ("fp32", "fp16", "int8", "int4")
GROUP_SIZES = (32, 128)
METHODS = ("rtn", "k-quant")
DEFAULT_GROUP_SIZE = 32
DEFAULT_METHOD = "k-quant"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxOptions:
    """``group_size`` weights of a row share a scale; ``method`` is how int4's scales are found.

    ``clamp`` cuts off what float16 cannot hold instead of refusing it.
    """

    type: str
    group_size: int | None = None
    method: str | None = None
    clamp: bool = False

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise ConversionError(f"onnx:{self.type} is not known: the types are {', '.join(TYPES)}")
        if self.group_size is not None:
            if not self.type.startswith("int"):
                raise ConversionError(f"onnx:{self.type} has no groups, so --group-size does nothing: leave it out")
            if self.group_size not in GROUP_SIZES:
                sizes = " or ".join(map(str, GROUP_SIZES))
                raise ConversionError(f"--group-size {self.group_size}: ONNX artifacts are written with {sizes}")
        if self.method is not None:
            if self.type != "int4":
                raise ConversionError(f"--int4-method is for onnx:int4, not for onnx:{self.type}: leave it out")
            if self.method not in METHODS:
                raise ConversionError(f"--int4-method {self.method}: choose {' or '.join(METHODS)}")

    @property
    def recipe(self) -> dict[str, Any]:
        """For the proof file."""
        if not self.type.startswith("int"):
            return {}
        method = {"int4_method": self.method or DEFAULT_METHOD} if self.type == "int4" else {}
        return {"group_size": self.group_size or DEFAULT_GROUP_SIZE, **method}
