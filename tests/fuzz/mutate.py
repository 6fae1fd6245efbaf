"""Valid frames made wrong, always the same way for the same seed: bits, bytes, lengths, splices, and protobuf by its grammar.

Most mutations are small, because a decoder refuses what is wholly wrong at its first look; what is nearly right goes deep.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

INTERESTING: Final = (0, 1, 2, 3, 7, 8, 16, 32, 64, 100, 125, 126, 127, 128, 129, 253, 254, 255)
WIDE: Final = (0, 1, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
GROWTH: Final = 256
"""Bytes that one step may add; what is longer is made of several."""


class Mutator:
    """Draws from ``corpus``, of which at least one entry is not empty. The corpus is used for splices as well."""

    def __init__(self, seed: int, corpus: Sequence[bytes], *, longest: int = 4096) -> None:
        self.dice = random.Random(seed)
        self.corpus = list(corpus)
        self._longest = longest
        self._steps = (self._flip, self._flip, self._byte, self._byte, self._number, self._insert, self._delete, self._double, self._splice)

    def pick(self) -> bytes:
        return self.corpus[int(self.dice.random() * len(self.corpus))]

    def make(self, frame: bytes | None = None) -> bytes:
        """``frame``, or one of the corpus, with one to four things wrong; now and then cut, followed by another, or noise."""
        content = bytearray(self.pick() if frame is None else frame)
        how = self.dice.random()
        if how < 0.05:
            del content[int(self.dice.random() * (len(content) + 1)) :]
            return bytes(content)
        if how < 0.08:
            return bytes(content) + self.make()[: self._longest]
        if how < 0.1:
            return self.dice.randbytes(int(self.dice.random() ** 3 * 600))
        for _ in range(1 + int(self.dice.random() ** 2 * 4)):
            self._steps[int(self.dice.random() * len(self._steps))](content)
        return bytes(content[: self._longest])

    def _at(self, content: bytearray) -> int:
        """Any place; the head of a frame, where lengths and types stand, three times as often as its share."""
        size = len(content)
        return int(self.dice.random() * (min(size, 12) if self.dice.random() < 0.3 else size))

    def _flip(self, content: bytearray) -> None:
        if content:
            content[self._at(content)] ^= 1 << int(self.dice.random() * 8)

    def _byte(self, content: bytearray) -> None:
        if content:
            new = INTERESTING[int(self.dice.random() * len(INTERESTING))] if self.dice.random() < 0.5 else int(self.dice.random() * 256)
            content[self._at(content)] = new

    def _number(self, content: bytearray) -> None:
        """A field of 2, 4 or 8 bytes, either end first, becomes a number at which something overflows; or one off."""
        if not content:
            return
        size = (2, 2, 4, 8)[int(self.dice.random() * 4)]
        at = self._at(content)
        end = "big" if self.dice.random() < 0.5 else "little"
        old = int.from_bytes(content[at : at + size], "big" if end == "big" else "little")
        new = WIDE[int(self.dice.random() * len(WIDE))] if self.dice.random() < 0.6 else old + (1 if self.dice.random() < 0.5 else -1)
        there = len(content[at : at + size])
        content[at : at + there] = (new & (1 << 8 * there) - 1).to_bytes(there, "big" if end == "big" else "little")

    def _insert(self, content: bytearray) -> None:
        at = self._at(content)
        content[at:at] = self.dice.randbytes(1 + int(self.dice.random() ** 3 * GROWTH))

    def _delete(self, content: bytearray) -> None:
        at = self._at(content)
        del content[at : at + 1 + int(self.dice.random() ** 3 * len(content))]

    def _double(self, content: bytearray) -> None:
        at = self._at(content)
        part = content[at : at + 1 + int(self.dice.random() * 32)]
        content[at:at] = bytes(part) * (1 + int(self.dice.random() ** 4 * 20))

    def _splice(self, content: bytearray) -> None:
        other = self.pick()
        at, begin = self._at(content), int(self.dice.random() * len(other))
        part = other[begin : begin + 1 + int(self.dice.random() * 64)]
        content[at : at + (len(part) if self.dice.random() < 0.5 else 0)] = part


def varint(value: int) -> bytes:
    """Protobuf's and LEB128's unsigned number; written here apart from the code under test."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


Field = tuple[int, int, bytes | int]
"""Number, wire type, and the content: bytes, or the number of a varint."""


def fields(data: bytes) -> list[Field]:
    """The fields of a protobuf message. Raises ValueError where ``data`` is none."""
    found: list[Field] = []
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire_type = key & 7
        if wire_type == 0:
            value, at = _varint(data, at)
            found.append((key >> 3, 0, value))
            continue
        size = {1: 8, 5: 4}.get(wire_type, -1)
        if wire_type == 2:
            size, at = _varint(data, at)
        if size < 0 or at + size > len(data):
            raise ValueError("no protobuf")
        found.append((key >> 3, wire_type, data[at : at + size]))
        at += size
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for step in range(10):
        if at + step >= len(data):
            break
        value |= (data[at + step] & 0x7F) << 7 * step
        if data[at + step] < 0x80:
            return value, at + step + 1
    raise ValueError("no protobuf")


def join(parts: Sequence[Field]) -> bytes:
    """The message made of ``parts``."""
    out = bytearray()
    for number, wire_type, content in parts:
        out += varint(number << 3 | wire_type)
        if isinstance(content, int):
            out += varint(content)
        else:
            out += (varint(len(content)) if wire_type == 2 else b"") + content
    return bytes(out)


class ProtobufMutator(Mutator):
    """Half of what it makes is wrong in its bytes, half in its fields: types, lengths, repetition, order, depth, text."""

    def make(self, frame: bytes | None = None) -> bytes:
        chosen = self.pick() if frame is None else frame
        if self.dice.random() < 0.5:
            return super().make(chosen)
        try:
            made = join(self._message(fields(chosen), 0))
        except ValueError:
            return super().make(chosen)
        return made[: self._longest]

    def _message(self, parts: list[Field], depth: int) -> list[Field]:
        if not parts or depth > 6:
            return [*parts, self._invented()]
        at = int(self.dice.random() * len(parts))
        number, wire_type, content = parts[at]
        how = int(self.dice.random() * 10)
        if how < 4 and wire_type == 2 and isinstance(content, bytes) and content:  # go deeper where it is a message
            try:
                parts[at] = (number, 2, join(self._message(fields(content), depth + 1)))
            except ValueError:
                parts[at] = (number, 2, super().make(content))
        elif how == 4:
            parts[at:at] = [parts[at]] * (1 + int(self.dice.random() ** 4 * 300))
        elif how == 5:
            del parts[at]
        elif how == 6:
            parts[at] = self._retyped(number)
        elif how == 7:
            parts[at] = (number, 2, self._nested(number))
        elif how == 8:
            self.dice.shuffle(parts)
        else:
            parts.insert(at, self._invented())
        return parts

    def _invented(self) -> Field:
        return self._retyped(1 + int(self.dice.random() ** 2 * 40))

    def _retyped(self, number: int) -> Field:
        """Any wire type, the two that no longer exist and the two that never did included."""
        how = int(self.dice.random() * 8)
        if how == 0:
            return (number, 1, self.dice.randbytes(8))
        if how == 1:
            return (number, 5, self.dice.randbytes(4))
        if how == 2:
            return (number, 3 + int(self.dice.random() * 5), self.dice.randbytes(4))
        if how == 3:
            return (number, 2, self.dice.choice((b"", b"\xff\xfe", b"\xed\xa0\x80", b"\0" * 300, self.dice.randbytes(20))))
        return (number, 0, self.dice.choice((*WIDE, 2**70 - 1)))

    def _nested(self, number: int) -> bytes:
        content = b""
        for _ in range(int(self.dice.random() * 150)):
            content = varint(number << 3 | 2) + varint(len(content)) + content
        return content


JSON_PIECES: Final = [
    *(
        b"[" * 1500,
        b'{"a":' * 1500,
        b"null",
        b"-1",
        b"1e999",
        b"-0.0",
        b"1.5",
        b"9" * 400,
        b'"\\ud800"',
        b'"\xff"',
        b"true",
        b"[]",
        b"{}",
        b'"a":1,',
    ),
    *(str(number).encode() for number in (2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63))),
]


class JsonMutator(Mutator):
    """Half of what it makes is wrong in its bytes, half has another value where one stood, or one entry more."""

    def make(self, frame: bytes | None = None) -> bytes:
        chosen = self.pick() if frame is None else frame
        if self.dice.random() < 0.5:
            return super().make(chosen)
        content = bytearray(chosen)
        for _ in range(1 + int(self.dice.random() * 3)):
            begins = [at for at, byte in enumerate(content) if byte in b":[,{"]
            at = self.dice.choice(begins) + 1 if begins else 0
            end = next((end for end in range(at, len(content)) if content[end] in b",]}"), at)
            content[at : end if self.dice.random() < 0.8 else at] = self.dice.choice(JSON_PIECES)
        return bytes(content)
