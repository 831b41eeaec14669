"""The metadata of a GGUF file: numbers and strings at once, arrays when somebody asks for them.

A vocabulary is some hundred thousand strings. Finding where it ends costs one step a string; making Python
strings of it costs several times as much, and who wants to know one token does not need the others.
"""

import mmap
from collections.abc import Iterator, Mapping
from struct import Struct
from typing import Any, NamedTuple

U64 = Struct("<Q")
STRING, ARRAY = 8, 9
NUMBERS: dict[int, Struct] = {
    **{code: Struct(f"<{letter}") for code, letter in enumerate("BbHhIif?")},
    **{code: Struct(f"<{letter}") for code, letter in enumerate("Qqd", start=10)},
}
"""The value types of a fixed size by their code: integers of 8, 16 and 32 bits without and with a sign, a
float, a bool of one byte; from 10 on those of 64 bits."""


class PackedArray(NamedTuple):
    """An array that is not decoded yet: what it holds, and where its elements start in the header."""

    type: int
    length: int
    start: int


class Metadata(Mapping[str, Any]):
    """The key-value pairs. Arrays are lists, decoded when first read; ``count`` and ``item`` do without."""

    def __init__(self, header: bytes, values: dict[str, Any]) -> None:
        self._header = header
        self._values = values

    def __getitem__(self, key: str) -> Any:
        value = self._values[key]
        if isinstance(value, PackedArray):
            value = self._values[key] = _decode(self._header, value)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def count(self, key: str) -> int | None:
        """How many elements the array at ``key`` has; None when there is no array."""
        value = self._values.get(key)
        if isinstance(value, PackedArray):
            return value.length
        return len(value) if isinstance(value, list) else None

    def item(self, key: str, index: int) -> Any:
        """One element of the array at ``key``, without decoding the others. KeyError, IndexError."""
        array = self._values[key]
        if not isinstance(array, PackedArray):
            return array[index]
        if not 0 <= index < array.length:
            raise IndexError(index)
        if array.type == STRING:
            start = skip_strings(self._header, array.start, index)
        else:
            start = array.start + index * NUMBERS[array.type].size
        return _decode(self._header, PackedArray(array.type, 1, start))[0]


def skip_strings(data: mmap.mmap | bytes, position: int, count: int) -> int:
    """The position after ``count`` strings. Called for whole vocabularies, so it does nothing else."""
    unpack_from = U64.unpack_from
    for _ in range(count):
        position += 8 + unpack_from(data, position)[0]
    return position


def _decode(header: bytes, array: PackedArray) -> list[Any]:
    if array.type != STRING:
        layout = Struct(f"<{array.length}{NUMBERS[array.type].format[-1]}")
        return list(layout.unpack_from(header, array.start))
    strings, end, unpack_from = [], array.start, U64.unpack_from
    for _ in range(array.length):
        start = end + 8
        end = start + unpack_from(header, end)[0]
        strings.append(header[start:end].decode("utf-8", "replace"))
    return strings
