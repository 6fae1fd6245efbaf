"""Raw bytes: where a number lies, how wide it is and which byte comes first. ``4:int16-le``, ``0.3:bool``, ``8:string[10]``."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any, Final

from protocols.payload.trouble import BadPlace

_PATTERN: Final = re.compile(r"(\d{1,8})(?:\.([0-7]))?:([a-z]+)(8|16|24|32|64)?(?:\[(\d{1,6})\])?(?:-(le|be))?")
_WIDTHS: Final[dict[str, tuple[int, ...]]] = {"int": (8, 16, 24, 32, 64), "uint": (8, 16, 24, 32, 64), "float": (32, 64)}
_ADVICE: Final = "write byte:type, such as 0:uint8, 4:int16-le, 6:float32-be, 3.7:bool, 8:string[10], 8:bytes (to the end)"


@dataclass(frozen=True, slots=True)
class Layout:
    start: int
    bit: int
    word: str
    """int, uint, float, bool, string or bytes."""
    size: int
    """Bytes; 0 takes the rest."""
    little: bool

    def read(self, payload: bytes) -> Any:  # Any: what the word says; None where the payload ends before
        part = payload[self.start : self.start + self.size] if self.size else payload[self.start :]
        if len(part) < self.size or self.start > len(payload):
            return None
        match self.word:
            case "int" | "uint":
                return int.from_bytes(part, "little" if self.little else "big", signed=self.word == "int")
            case "float":
                return struct.unpack(("<" if self.little else ">") + ("f" if self.size == 4 else "d"), part)[0]
            case "bool":
                return bool(part[0] >> self.bit & 1)
            case "bytes":
                return part
        try:
            return part.split(b"\0", 1)[0].decode()
        except UnicodeDecodeError:
            return None

    def write(self, value: Any) -> bytes:  # Any: of the word's kind
        """The bytes of ``value`` alone, without what stands around it. Raises ValueError, struct.error, OverflowError."""
        match self.word:
            case "int" | "uint":
                return int(value).to_bytes(self.size, "little" if self.little else "big", signed=self.word == "int")
            case "float":
                return struct.pack(("<" if self.little else ">") + ("f" if self.size == 4 else "d"), value)
            case "bool":
                return bytes((int(bool(value)) << self.bit,))
        told = value if isinstance(value, bytes) else str(value).encode()
        if self.size and len(told) > self.size:
            raise ValueError(f"the value takes {len(told)} bytes, and there is room for {self.size}")
        return told.ljust(self.size, b"\0")


def compile_layout(text: str) -> Layout:
    """Raises BadPlace."""
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise BadPlace(f"{text!r} is no place in raw bytes", _ADVICE)
    start, bit, word, width, length, order = found.groups()
    if word in _WIDTHS:
        if width is None or int(width) not in _WIDTHS[word] or length or bit:
            raise BadPlace(f"{text!r}: {word} comes in {', '.join(f'{word}{one}' for one in _WIDTHS[word])}", _ADVICE)
        if order is None and int(width) > 8:
            raise BadPlace(f"{text!r} does not say which byte comes first", "end it with -le (least first) or -be (most first)")
        size = int(width) // 8
    elif word == "bool" and not (width or length or order):
        size = 1
    elif word in ("string", "bytes") and not (width or bit or order):
        size = int(length or 0)
    else:
        raise BadPlace(f"{text!r} is no place in raw bytes", _ADVICE)
    return Layout(int(start), int(bit or 0), word, size, order == "le")
