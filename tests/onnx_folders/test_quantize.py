"""Quantized blocks: against a slow obvious reference, against onnxruntime's own quantizers, and against its kernel."""

from pathlib import Path

import numpy as np
import pytest

from tapster.converters.onnx.packing import dequantize, pack_codes, pack_zeros
from tapster.converters.onnx.quantize import Quantized, in_blocks, k_quant, round_to_nearest, symmetric_8_bit
from tapster.converters.onnx.storage import Format
from tapster.converters.onnx.stream import encode


def _weights(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((rows, columns)) * 0.05).astype(np.float32)


def _restored(made: Quantized) -> np.ndarray:
    zeros = np.float32(128) if made.zeros is None else made.zeros[:, :, None].astype(np.float32)
    return (made.codes - zeros) * made.scales[:, :, None]


def _weighted_loss(blocks: np.ndarray, restored: np.ndarray) -> float:
    weights = np.abs(blocks) + np.sqrt(np.square(blocks).mean(axis=2, keepdims=True))
    return float((weights * np.square(restored - blocks)).sum())


def test_round_to_nearest_by_hand() -> None:
    """A block from -1 to 2: steps of 0.2, zero is the fifth code."""
    block = np.zeros(32, np.float32)
    block[:4] = [-1.0, 2.0, 0.31, -0.12]
    made = round_to_nearest(block.reshape(1, 1, 32))
    assert made.scales[0, 0] == pytest.approx(0.2)
    assert made.zeros is not None
    assert made.zeros[0, 0] == 5
    assert made.codes[0, 0, :5].tolist() == [0, 15, 7, 4, 5]


def test_round_to_nearest_is_the_obvious_one() -> None:
    blocks = in_blocks(_weights(6, 96), 32)
    made = round_to_nearest(blocks)
    assert made.zeros is not None
    for row, index in np.ndindex(blocks.shape[:2]):
        block = blocks[row, index]
        scale = (block.max() - block.min()) / 15
        zero = round(-block.min() / scale)
        assert made.scales[row, index] == pytest.approx(scale, rel=1e-6)
        assert made.zeros[row, index] == zero
        codes = [min(max(round(float(weight / scale)) + zero, 0), 15) for weight in block]
        assert np.abs(made.codes[row, index].astype(int) - codes).max() <= 1  # one where a float sits on a border
        assert np.mean(made.codes[row, index] == codes) > 0.95


@pytest.mark.parametrize("block", [32, 128])
def test_round_to_nearest_is_onnxruntimes(block: int) -> None:
    weight_only = pytest.importorskip("onnxruntime.quantization.neural_compressor.weight_only")
    blocks = in_blocks(_weights(40, 512), block)
    codes, scales, zeros = weight_only.quant_tensor(blocks, num_bits=4, group_size=block)
    made = round_to_nearest(blocks)
    assert made.zeros is not None
    np.testing.assert_allclose(made.scales.ravel(), scales.ravel(), rtol=1e-6)
    assert (made.zeros.ravel() == zeros.ravel()).all()
    assert (made.codes.reshape(codes.shape) == codes).mean() > 0.9999


@pytest.mark.parametrize("block", [32, 128])
def test_k_quant_loses_less_than_onnxruntimes(block: int) -> None:
    weight_only = pytest.importorskip("onnxruntime.quantization.neural_compressor.weight_only")
    blocks = in_blocks(_weights(40, 512), block)
    codes, scales, zeros = weight_only.quant_tensor_k_quant_cpu(blocks, num_bits=4, group_size=block)
    theirs = _weighted_loss(blocks, ((codes - zeros) * scales).reshape(blocks.shape))
    plain = _weighted_loss(blocks, _restored(round_to_nearest(blocks)))
    ours = _weighted_loss(blocks, _restored(k_quant(blocks)))
    assert ours < 0.95 * plain
    assert ours < 0.95 * theirs


def test_k_quant_finds_the_best_of_its_candidates() -> None:
    """One block at a time, every span tried by the plain definition of the loss."""
    from tapster.converters.onnx.quantize import _SPANS

    blocks = in_blocks(_weights(3, 64, seed=5), 32)
    made = k_quant(blocks)
    restored = _restored(made)
    for row, index in np.ndindex(blocks.shape[:2]):
        block = blocks[row, index].astype(np.float64)
        weights = np.abs(block) + np.sqrt(np.mean(block**2))
        losses = []
        for span in _SPANS:
            inverse = span / (block.max() - block.min())
            zero = min(round(-block.min() * inverse), 15)
            levels = np.clip(np.rint(block * inverse), -zero, 15 - zero)
            scale = (weights * block * levels).sum() / (weights * levels * levels).sum()
            again = np.clip(np.rint(block / scale), -zero, 15 - zero)
            losses.append((weights * (again * scale - block) ** 2).sum())
        loss = (weights * (restored[row, index] - block) ** 2).sum()
        assert loss <= np.median(losses)
        assert loss <= min(losses) * 1.05


@pytest.mark.parametrize("method", [round_to_nearest, k_quant, symmetric_8_bit])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-30, 65504.0])
def test_blocks_of_one_value(method, value: float) -> None:
    blocks = np.full((2, 3, 32), value, np.float32)
    np.testing.assert_allclose(_restored(method(blocks)), blocks, rtol=0.01, atol=1e-30)


@pytest.mark.parametrize("method", [round_to_nearest, k_quant])
def test_blocks_far_from_zero_keep_zero(method) -> None:
    """All weights between 1 and 2: zero stays a value that the codes have, so none is cut off."""
    blocks = in_blocks(_weights(4, 64) * 4 + 1.5, 32)
    assert np.abs(_restored(method(blocks)) - blocks).max() < 0.12


@pytest.mark.parametrize("columns", [32, 96, 160, 576])
@pytest.mark.parametrize("kind", [Format(4, 32, "rtn"), Format(4, 128, "k-quant"), Format(8, 32), Format(8, 128)])
def test_packed_and_back(kind: Format, columns: int) -> None:
    """Rows that are no whole blocks, and odd numbers of zero points."""
    weights = _weights(5, columns)
    codes, scales, *zeros = encode(weights, kind)
    blocks = -(-columns // kind.block)
    assert codes.shape == (5, blocks, kind.block * kind.bits // 8)
    assert scales.shape == (5, blocks)
    back = dequantize(codes, scales, zeros[0] if zeros else None, bits=kind.bits, num_columns=columns)
    assert back.shape == weights.shape
    error = np.sqrt(np.square(back - weights).mean() / np.square(weights).mean())
    assert error < (0.13 if kind.bits == 4 else 0.01)


def test_nibbles_lie_low_half_first() -> None:
    assert pack_codes(np.array([[[1, 2, 15, 0]]], np.uint8), 4).tolist() == [[[0x21, 0x0F]]]
    assert pack_zeros(np.array([[8, 3, 7]], np.uint8)).tolist() == [[0x38, 0x07]]


@pytest.mark.parametrize("columns", [64, 144, 576])
@pytest.mark.parametrize("kind", [Format(4, 32, "rtn"), Format(4, 128, "k-quant"), Format(8, 32), Format(8, 128)])
def test_onnxruntime_computes_with_what_is_read_back(kind: Format, columns: int, tmp_path: Path) -> None:
    """MatMulNBits on the identity gives the matrix itself."""
    onnxruntime = pytest.importorskip("onnxruntime")
    ir = pytest.importorskip("onnx_ir")
    weights = _weights(24, columns)
    arrays = encode(weights, kind)
    values = [
        ir.Value(name=f"part{index}", const_value=ir.tensor(np.ascontiguousarray(array), name=f"part{index}"))
        for index, array in enumerate(arrays)
    ]
    given = ir.Value(name="x", shape=ir.Shape([columns, columns]), type=ir.TensorType(ir.DataType.FLOAT))
    made = ir.Value(name="y", shape=ir.Shape([columns, 24]), type=ir.TensorType(ir.DataType.FLOAT))
    attributes = {"K": columns, "N": 24, "bits": kind.bits, "block_size": kind.block}
    node = ir.node("MatMulNBits", [given, *values], attributes, domain="com.microsoft", outputs=[made])
    opsets = {"": 21, "com.microsoft": 1}
    graph = ir.Graph([given], [made], nodes=[node], initializers=values, opset_imports=opsets, name="one")
    ir.save(ir.Model(graph, ir_version=10), tmp_path / "one.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "one.onnx"))
    computed = session.run(None, {"x": np.eye(columns, dtype=np.float32)})[0].T
    codes, scales, *zeros = arrays
    back = dequantize(codes, scales, zeros[0] if zeros else None, bits=kind.bits, num_columns=columns)
    np.testing.assert_allclose(computed, back, rtol=0, atol=1e-6)
