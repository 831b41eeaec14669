"""Quantize rows of weights block by block, as MatMulNBits reads them: ``weight = (code - zero point) * scale``.

Codes are unsigned. Four bits have a zero point for each block, so that a block's range is used whole; eight bits do
without: their zero point is always 128, which saves time and space where precision is no concern.

Arrays here are (rows, blocks, block size) going in and out; inside, blocks are columns, because sums over the first
axis are what numpy vectorizes best.
"""

from dataclasses import dataclass

import numpy as np

SYMMETRIC_ZERO = 128
_SPANS = np.arange(13.5, 16.01, 0.25, dtype=np.float32)
"""Over how many codes a block's range is spread in the search for the best scale. Plain rounding takes 15; fewer give
a finer zero point, more cut off the ends."""
_COLUMNS = 2048
"""How many blocks are searched at a time: what that takes stays in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """``codes`` (rows, blocks, block size) uint8; ``scales`` (rows, blocks) float32; ``zeros`` likewise, uint8."""

    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None


def in_blocks(values: np.ndarray, block: int) -> np.ndarray:
    """(rows, columns) as (rows, blocks, block); the last block is filled up with zeros."""
    rows, columns = values.shape
    missing = -columns % block
    if missing:
        values = np.pad(values, ((0, 0), (0, missing)))
    return values.reshape(rows, -1, block)


def symmetric_8_bit(blocks: np.ndarray) -> Quantized:
    """The largest weight of a block gets the code 1 or 255, zero gets 128."""
    largest = np.abs(blocks).max(axis=2)
    scales = largest / np.float32(127)
    codes = np.rint(blocks * _inverse(scales)[:, :, None])
    codes += SYMMETRIC_ZERO
    return Quantized(codes.astype(np.uint8), scales, None)


def round_to_nearest(blocks: np.ndarray) -> Quantized:
    """Four bits; 16 codes span each block's range, which always has zero in it."""
    low = np.minimum(blocks.min(axis=2), 0)
    scales = (np.maximum(blocks.max(axis=2), 0) - low) / np.float32(15)
    inverse = _inverse(scales)
    zeros = np.rint(-low * inverse)
    codes = np.rint(blocks * inverse[:, :, None])
    codes += zeros[:, :, None]
    _limit(codes, 0, 15)
    return Quantized(codes.astype(np.uint8), scales, zeros.astype(np.uint8))


def k_quant(blocks: np.ndarray) -> Quantized:
    """Four bits; of several scales near the plain one the one that loses least.

    The loss is the squared error with each weight counted by its size and the block's (llama.cpp's k-quants count
    like this, ``make_qkx2_quants``). For each scale tried, the zero point is the nearest whole number and the scale
    is fitted to the codes anew: the best is ``sum(w * x * q) / sum(w * q * q)``, as only it is unknown.
    """
    rows, count, block = blocks.shape
    flat = blocks.reshape(rows * count, block)
    codes = np.empty((rows * count, block), np.uint8)
    scales, zeros = np.empty(rows * count, np.float32), np.empty(rows * count, np.uint8)
    for start in range(0, len(flat), _COLUMNS):
        part = slice(start, start + _COLUMNS)
        codes[part], scales[part], zeros[part] = _search(np.ascontiguousarray(flat[part].T))
    return Quantized(codes.reshape(blocks.shape), scales.reshape(rows, count), zeros.reshape(rows, count))


def _search(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best codes, scales and zero points of blocks that stand in columns."""
    squares = np.einsum("ij,ij->j", columns, columns)
    weights = np.abs(columns)
    weights += np.sqrt(squares / np.float32(len(columns)))
    weighted = weights * columns
    low, high = np.minimum(columns.min(axis=0), 0), np.maximum(columns.max(axis=0), 0)
    per_range = _inverse(high - low)
    best_gain = np.full(columns.shape[1], -1, np.float32)
    best_scale, best_zero = np.zeros_like(best_gain), np.zeros_like(best_gain)
    levels = np.empty_like(columns)
    for span in _SPANS:
        inverse = per_range * span
        zero = np.minimum(np.rint(-low * inverse), 15)
        np.multiply(columns, inverse, out=levels)
        np.rint(levels, out=levels)
        _limit(levels, -zero, 15 - zero)
        along = np.einsum("ij,ij->j", weighted, levels)
        levels *= levels
        size = np.einsum("ij,ij->j", weights, levels)
        scale = along * _inverse(size)
        gain = along * scale  # the loss is that of no codes at all, less this
        is_better = gain > best_gain
        best_gain = np.where(is_better, gain, best_gain)
        best_scale, best_zero = np.where(is_better, scale, best_scale), np.where(is_better, zero, best_zero)
    np.multiply(columns, _inverse(best_scale), out=levels)
    np.rint(levels, out=levels)
    levels += best_zero
    _limit(levels, 0, 15)
    return levels.T.astype(np.uint8), best_scale, best_zero.astype(np.uint8)


def _limit(values: np.ndarray, low: np.ndarray | int, high: np.ndarray | int) -> None:
    """In place; ``np.clip`` with arrays takes five times as long."""
    np.maximum(values, low, out=values)
    np.minimum(values, high, out=values)


def _inverse(scales: np.ndarray) -> np.ndarray:
    """1 / scale, and 0 where that is none: a block of zeros keeps its zeros."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / scales
    return np.where(np.isfinite(inverse), inverse, np.float32(0))
