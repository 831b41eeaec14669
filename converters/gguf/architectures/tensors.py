"""The tensors of a checkpoint, taken one by one: none may be missing, misshapen, or left over."""

import re
from collections.abc import Mapping
from math import prod

from ....runtime.errors import ConversionError
from ...checkpoint.safetensors import CheckpointTensor

_DROPPED = re.compile(
    r"\.rotary_emb\.inv_freq$"  # computed anew from the config by everyone
    r"|\.attention\.(masked_)?bias$"  # the causal mask of GPT-NeoX, once saved as a tensor
)


class TensorSource:
    """The tensors whose names begin with ``prefix``; ``take`` marks them as used."""

    def __init__(
        self, tensors: Mapping[str, CheckpointTensor], prefix: str = "", dropped: tuple[str, ...] = ()
    ) -> None:
        self._tensors = tensors
        self._prefix = prefix
        self._dropped = dropped
        self._taken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __len__(self) -> int:
        return len(self._tensors)

    def take(self, name: str, *shapes: tuple[int, ...]) -> CheckpointTensor:
        """The tensor, which has to have one of these shapes (any, without). ConversionError."""
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ConversionError(f"the checkpoint has no tensor {name}, which its config.json asks for")
        if shapes and tensor.shape not in shapes:
            wanted = " or ".join(str(list(shape)) for shape in shapes)
            raise ConversionError(
                f"the tensor {name} has the shape {list(tensor.shape)}, and config.json asks for {wanted}"
            )
        self._taken.add(name)
        return tensor

    def take_elements(self, name: str, count: int) -> CheckpointTensor:
        """The tensor, of any shape that has this many elements."""
        tensor = self.take(name)
        if prod(tensor.shape) != count:
            raise ConversionError(
                f"the tensor {name} has the shape {list(tensor.shape)}, and config.json asks for {count} elements"
            )
        return tensor

    def refuse_leftover(self, target: str, reasons: Mapping[str, str]) -> None:
        """ConversionError for the first tensor that nobody took; ``reasons`` explain some, by part of the name."""
        for name, tensor in self._tensors.items():
            if name in self._taken or _DROPPED.search(name) or name.startswith(self._dropped):
                continue
            reason = next((reason for part, reason in reasons.items() if part in name), None)
            raise ConversionError(
                f"the checkpoint has the tensor {name} of shape {list(tensor.shape)}: "
                + (reason or f"{target} as GGUF has it does not use it, so the model would compute something else")
            )
