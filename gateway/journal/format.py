"""The number of the format that a file of the journal is written in, and what is done with one that this release cannot read.

A segment of format 1 says nothing: its header's user_version and application_id are 0, as every release since the first has left them. A
later format writes MARK and its number into both, in the file itself, before the first record. So no flipped bit makes a newer file of an
old one, and one in either place leaves the other.

A release never opens, mends, quarantines or removes a file of a newer format: to whoever cannot read it, it looks like damage from end to
end. The whole journal stays as it is then, and is waited for (a gateway that went on beside it would use its sequence numbers again).
Therefore a release writes a new format only when the release before it can read it: see decision 0014.
"""

from __future__ import annotations

from pathlib import Path
from struct import Struct
from typing import Final

from gateway.journal.record import Lane
from gateway.journal.segment import StorageError, translated

FORMAT: Final = 1
"""What this release writes, and the newest that it reads."""
MARK: Final = 0x4846 << 16
_HEAD: Final = Struct(">60xI4xI28x")
"""user_version and application_id in the header of a SQLite file (its format, 1.3)."""
_MAGIC: Final = b"SQLite format 3\0"


class NewerFormat(StorageError):
    """A newer release wrote it. Nothing was touched."""


def format_of(path: Path) -> int:
    """The number of the format of a segment; 1 for whatever does not say another one, or cannot be read: that is damage, to be mended."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
    except OSError:
        return FORMAT
    if len(head) < _HEAD.size or not head.startswith(_MAGIC):
        return FORMAT
    numbers = [number ^ MARK for number in _HEAD.unpack(head) if number & 0xFFFF0000 == MARK]
    return max(numbers, default=FORMAT)


def newer(folder: Path) -> list[tuple[Path, int]]:
    """Segments in the journal's folder of a format that this release cannot read, with its number. Raises StorageError."""
    with translated(folder):
        paths = sorted(path for lane in Lane for path in (folder / lane.value).glob("*.seg*") if path.suffix in (".seg", ".rescued"))
    return [(path, number) for path in paths if (number := format_of(path)) > FORMAT]


def refuse_newer(folder: Path) -> None:
    """Raises NewerFormat where a newer release has left something that this one cannot read."""
    found = newer(folder)
    if found:
        path, number = found[0]
        raise NewerFormat(
            f"a newer release wrote {len(found)} files of the journal that this one cannot read, the first is {path} (format {number}; "
            f"this release reads {FORMAT}): nothing was touched; start the newer release again"
        )
