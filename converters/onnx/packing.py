"""How MatMulNBits keeps codes: four bits two to a byte, the first in the lower half, block by block; and back."""

import numpy as np

from .quantize import SYMMETRIC_ZERO


def pack_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    """(rows, blocks, block) codes as (rows, blocks, bytes of a block)."""
    return codes if bits == 8 else _pack_nibbles(codes)


def pack_zeros(zeros: np.ndarray) -> np.ndarray:
    """(rows, blocks) four-bit zero points as (rows, bytes of a row); a row's odd last half stays zero."""
    if zeros.shape[1] % 2:
        zeros = np.pad(zeros, ((0, 0), (0, 1)))
    return _pack_nibbles(zeros)


def dequantize(
    packed: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None, *, bits: int, num_columns: int
) -> np.ndarray:
    """What the weights are that onnxruntime computes with: (rows, columns) float32."""
    codes = (packed if bits == 8 else _unpack_nibbles(packed)).astype(np.float32)
    if zeros is None:
        codes -= SYMMETRIC_ZERO
    else:
        codes -= _unpack_nibbles(zeros)[:, : scales.shape[1], None]
    codes *= scales[:, :, None]
    return codes.reshape(len(codes), -1)[:, :num_columns]


def _pack_nibbles(values: np.ndarray) -> np.ndarray:
    return values[..., 0::2] | (values[..., 1::2] << 4)


def _unpack_nibbles(packed: np.ndarray) -> np.ndarray:
    unpacked = np.empty((*packed.shape[:-1], packed.shape[-1] * 2), np.uint8)
    unpacked[..., 0::2] = packed & 15
    unpacked[..., 1::2] = packed >> 4
    return unpacked
