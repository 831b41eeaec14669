"""Protocol buffers as far as files of models need them: the fields of a message, one after the other.

Source: "Encoding" in the documentation of Protocol Buffers. A message is read without its description, so nested
messages are bytes until they are read in turn. Reading few fields so saves the import of the library.
"""

from collections.abc import Iterator
from typing import TypeVar

Buffer = TypeVar("Buffer", bytes, memoryview)
_FIXED_BYTES = {1: 8, 5: 4}
_MOST_BITS = 63


def fields(data: Buffer) -> Iterator[tuple[int, int | Buffer]]:
    """Field numbers with their values: a number for a varint, else the bytes. ValueError, IndexError when damaged."""
    position, end = 0, len(data)
    while position < end:
        tag, position = varint(data, position)
        kind = tag & 7
        if kind == 0:
            value, position = varint(data, position)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, position = varint(data, position)
        else:
            size = _FIXED_BYTES.get(kind, end + 1)
        if position + size > end:
            raise ValueError("a field runs past its end")
        yield tag >> 3, data[position : position + size]
        position += size


def varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """The number that starts at ``position``, seven bits a byte, and where the next thing starts."""
    byte = data[position]
    value, shift = byte & 0x7F, 7
    while byte & 0x80:
        if shift > _MOST_BITS:
            raise ValueError("a number is too long")
        position += 1
        byte = data[position]
        value |= (byte & 0x7F) << shift
        shift += 7
    return value, position + 1
