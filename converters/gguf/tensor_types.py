"""Types asked for single tensors, checked before a quantizer starts: llama.cpp would abort, or silently do nothing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...runtime.errors import ConversionError
from ...runtime.gguf_header import TensorInfo
from .ggml import ggml_type
from .types import IMATRIX_ADVICE, IMATRIX_TENSOR_TYPES, QuantType, tensor_type

EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"


@dataclass(frozen=True, slots=True)
class TensorTypes:
    """What is asked beyond the file's type: (regular expression, type) pairs, the first that is found in a name
    counts; a type for the output layer, which tied embeddings share; one for the embeddings."""

    patterns: tuple[tuple[str, str], ...] = ()
    output: str | None = None
    embedding: str | None = None


def checked_tensor_types(
    patterns: Sequence[tuple[str, str]],
    output: str | None,
    embedding: str | None,
    kind: QuantType,
    tensors: Sequence[TensorInfo],
    has_imatrix: bool,
) -> TensorTypes:
    """The same with the types by their proper names. ConversionError for what cannot be done to ``tensors``."""
    wanted = TensorTypes(
        tuple((_checked_pattern(pattern, tensors), tensor_type(name)) for pattern, name in patterns),
        tensor_type(output) if output else None,
        tensor_type(embedding) if embedding else None,
    )
    if wanted.patterns and ggml_type(kind.base).block_size == 1:
        raise ConversionError(f"single tensors cannot have another type in a {kind.name} file: choose a smaller type")
    if not has_imatrix:
        _check_imatrix(kind, wanted)
    for name, type_name in ((OUTPUT, wanted.output), (EMBEDDING, wanted.embedding)):
        _check_whole_tensor(name, type_name, tensors)
    return wanted


def _checked_pattern(pattern: str, tensors: Sequence[TensorInfo]) -> str:
    try:
        if any(re.search(pattern, tensor.name) for tensor in tensors):
            return pattern
    except re.error as error:
        raise ConversionError(f"--tensor-type {pattern!r} is no regular expression: {error}") from error
    raise ConversionError(
        f"--tensor-type {pattern!r} is in no tensor's name; they are called like {tensors[0].name!r} and "
        f"{tensors[-1].name!r}"
    )


def _check_imatrix(kind: QuantType, wanted: TensorTypes) -> None:
    if kind.needs_imatrix:
        raise ConversionError(f"{kind.name} needs an importance matrix: {IMATRIX_ADVICE}")
    for pattern, type_name in wanted.patterns:
        if type_name in IMATRIX_TENSOR_TYPES:
            message = f"--tensor-type {pattern}={type_name} needs an importance matrix: {IMATRIX_ADVICE}"
            raise ConversionError(message)


def _check_whole_tensor(name: str, type_name: str | None, tensors: Sequence[TensorInfo]) -> None:
    """Embeddings and output are not in an importance matrix, and llama.cpp has no other type to fall back to."""
    tensor = next((tensor for tensor in tensors if tensor.name == name), None)
    if tensor is None or type_name is None:
        return
    if type_name in IMATRIX_TENSOR_TYPES:
        raise ConversionError(f"{name} cannot be {type_name}, which needs an importance matrix: choose Q2_K or more")
    block_size = ggml_type(type_name).block_size
    if tensor.shape[0] % block_size:
        raise ConversionError(
            f"{name} cannot be {type_name}: its rows of {tensor.shape[0]} do not divide by {block_size}; choose Q8_0"
        )
