"""Real rounding of weights of all sorts, as MLX and MatMulNBits store them, against the bounds of a proof."""

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest
from odd_weights import SHAPES, odd_weights

from tapster.converters.folder import ArtifactTensor
from tapster.converters.mlx.options import TYPES, MlxType
from tapster.converters.onnx.quantize import Quantized, in_blocks, k_quant, round_to_nearest, symmetric_8_bit
from tapster.converters.proof.bounds import EXACT, bits, block_size, divergence_bound, tensor_bound
from tapster.converters.proof.subject import FolderTensor
from tapster.converters.proof.tensors import _relative, _squares

MLX = [(kind, size) for kind in TYPES.values() for size in kind.group_sizes]
ONNX = [(method, size) for method in (symmetric_8_bit, round_to_nearest, k_quant) for size in (32, 128)]


def label(kind: MlxType, group_size: int) -> str:
    return f"{kind.name}-g{group_size}" if kind.mode == "affine" else kind.name


def assert_within(type_name: str, values: np.ndarray, again: np.ndarray) -> None:
    bound, size = tensor_bound(type_name), block_size(type_name, values.shape[1])
    rmse, block = _relative(_squares(again - values, size), _squares(values, size))
    assert 0 < rmse < 0.95 * bound.tensor
    assert block < 0.95 * bound.block
    inverted, _ = _relative(_squares(-again - values, size), _squares(values, size))
    assert inverted > bound.tensor


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "group_size"), MLX, ids=lambda value: getattr(value, "name", str(value)))
def test_no_odd_weights_reach_the_bounds_in_mlx(kind: MlxType, group_size: int, shape: str) -> None:
    """From bfloat16, with scales in bfloat16, as the writer does it."""
    if importlib.util.find_spec("mlx") is None:
        pytest.skip("no mlx: pip install 'tapster[mlx]'")
    import mlx.core as mx

    given = mx.array(odd_weights(shape)).astype(mx.bfloat16)
    chosen = {"group_size": group_size, "bits": kind.bits, "mode": kind.mode}
    packed = mx.quantize(given, **chosen)
    again = mx.dequantize(*packed, **chosen, dtype=mx.float32)
    assert_within(label(kind, group_size), np.array(given.astype(mx.float32)), np.array(again))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("method", "group_size"), ONNX)
def test_no_odd_weights_reach_the_bounds_in_onnx(
    method: Callable[[np.ndarray], Quantized], group_size: int, shape: str
) -> None:
    values = odd_weights(shape)
    made = method(in_blocks(values, group_size))
    zeros = 128.0 if made.zeros is None else made.zeros[:, :, None].astype(np.float32)
    again = ((made.codes.astype(np.float32) - zeros) * made.scales[:, :, None]).reshape(values.shape)
    assert_within(f"int{8 if method is symmetric_8_bit else 4}-g{group_size}", values, again)


def test_fewer_bits_may_predict_less_like_16() -> None:
    labels = [label(kind, size) for kind, size in MLX]
    assert not EXACT & set(labels)
    assert {bits(name) for name in labels} == {2, 3, 3.5, 4, 5, 6, 8}
    assert divergence_bound(["4bit-g64", "8bit-g64"]) == pytest.approx(1.6)
    assert divergence_bound(["int4-g32"]) == divergence_bound(["mxfp4"]) == pytest.approx(1.6)
    assert divergence_bound(["int8-g32"]) == pytest.approx(0.1)


def test_a_tensor_is_read_in_rows() -> None:
    """One with more rows than are read at once, and a vector, which is one row."""
    values = np.arange(40_000 * 64, dtype=np.float32).reshape(40_000, 64)
    tensor = FolderTensor("x", ArtifactTensor(("x",), values.shape, "fp32", values.nbytes, lambda rows: values[rows]))
    parts = list(tensor.float32_rows())
    assert len(parts) > 1
    assert np.array_equal(np.concatenate([part for _, part in parts]), values)
    vector = FolderTensor("x", ArtifactTensor(("x",), (64,), "bf16", 128, lambda rows: values[0][rows]))
    [(_, row)] = vector.float32_rows()
    assert (vector.type, row.shape) == ("BF16", (1, 64))
