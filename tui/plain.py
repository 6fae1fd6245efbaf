"""Text as a terminal may be given it, whoever wrote it, and tables that fit.

Names, units and messages come from devices and from people, and a terminal obeys what it is sent. So every character that does not
print is shown as its code: control characters (also the 8-bit ones, which some terminals obey), bidirectional overrides, surrogates,
line separators. Nothing of ours is coloured or moves the cursor: what is left prints. Pure.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

LEAST_WIDTH: Final = 40
MOST_MARKS: Final = 2
"""Marks above and below one letter; more of them paint over other lines."""
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKS: Final = frozenset({"Mn", "Me"})
_SPELT: Final = {"°": "deg ", "µ": "u", "μ": "u", "Ω": "Ohm", "…": "...", "–": "-", "—": "-", "Ø": "O", "ß": "ss"}


def clean(text: str) -> str:
    """``text`` with every character that does not print as its code: ``\\x1b``, ``\\u202e``. What is clean stays as it is."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(text))


def _shown(text: str) -> Iterator[str]:
    marks = 0
    for character in text:
        kind = unicodedata.category(character)
        marks = marks + 1 if kind in _MARKS else 0
        yield _code(character) if kind in _UNSEEN or marks > MOST_MARKS else character


def _code(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def ascii_only(text: str) -> str:
    """``text`` for a terminal that knows nothing but ASCII: ``m³`` is ``m3``, ``°C`` is ``deg C``; what has no such form is ``?``."""
    if text.isascii():
        return text
    spelt = "".join(_SPELT.get(character, character) for character in text)
    bare = "".join(each for each in unicodedata.normalize("NFKD", spelt) if unicodedata.category(each) not in _MARKS)
    return bare.encode("ascii", "replace").decode()


def width_of(text: str) -> int:
    """How many columns ``text`` takes; it is clean."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in _MARKS:
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def cut(text: str, width: int) -> str:
    """``text`` in ``width`` columns: its beginning, and ``~`` where something is left out."""
    if width_of(text) <= width:
        return text
    kept, taken = [], 0
    for character in text:
        taken += _columns(character)
        if taken > width - 1:
            break
        kept.append(character)
    return "".join(kept) + "~" if width > 0 else ""


def table(rows: Iterable[Sequence[str]], width: int, shrinks: int = 0) -> list[str]:
    """``rows`` in columns as wide as their widest cell; where they do not fit, column ``shrinks`` is cut, and then the line is."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(width_of(cell) for cell in column) for column in zip(*cells, strict=True)]
    over = sum(widths) + 2 * (len(widths) - 1) - width
    if over > 0:
        widths[shrinks] = max(min(8, widths[shrinks]), widths[shrinks] - over)
    return [cut("  ".join(_fitted(cell, wide) for cell, wide in zip(row, widths, strict=True)).rstrip(), width) for row in cells]


def _fitted(cell: str, width: int) -> str:
    short = cut(cell, width)
    return short + " " * (width - width_of(short))


def wrapped(text: str, width: int, indent: str = "", first: str | None = None) -> list[str]:
    """``text`` in lines of at most ``width`` columns, broken at spaces where there are any; ``first`` is before the first of them."""
    lines, line = [], indent if first is None else first
    begun = False
    for word in clean(text).split():
        if begun and width_of(line) + 1 + width_of(word) > width:
            lines.append(line)
            line, begun = indent, False
        line += (" " if begun else "") + word
        begun = True
        while width_of(line) > width:
            head = cut(line, width + 1)[:-1]
            lines.append(head)
            line = indent + line[len(head) :]
    return [*lines, line] if begun or first is not None else lines
