"""How far each lane has got, told beside the segments: what proves that a deleted WAL or a cut-off end held records.

The newest segment is told of by nobody else. So after each commit the heads go into a file of one disk sector, without
a sync of their own: after a kill they are exact, after a power cut they are as old as the kernel's last write-back, and
they never claim what was not durable. A damaged or absent file says nothing. Runs on the writer thread.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.journal import codec
from gateway.journal.codec import FrameKind, Unreadable
from gateway.journal.record import Lane

log = structlog.get_logger("holdfast.journal")

SECTOR: Final = 512
MOST_SEQ: Final = 1 << 54
"""A row id holds no larger seq."""


class Head(msgspec.Struct, array_like=True, frozen=True):
    """What is known of one lane."""

    epoch: int
    """Of the last durable record."""
    next: int
    """Seq after the last durable record."""
    first: int = 1
    """Seq of the oldest record that is kept: what was before it is in no file, and nobody misses it."""


class Heads:
    """The file ``heads`` in the journal's folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "heads"
        self.told: dict[Lane, Head] = {}
        self._descriptor = -1
        self._failed = False

    def recall(self) -> None:
        """Take in what the file says, if it proves itself."""
        with contextlib.suppress(OSError, Unreadable, *codec.UNDECODABLE):
            head, body = codec.open_frame(self.path.read_bytes())
            if head.kind == FrameKind.HEADS:
                told = msgspec.msgpack.decode(body, type=dict[Lane, Head])
                self.told = {lane: each for lane, each in told.items() if 0 < each.first <= each.next < MOST_SEQ}

    def tell(self, lane: Lane, epoch: int, head: int, first: int) -> bool:
        """Note where a lane stands. Returns whether that is news, to be written by :meth:`write`."""
        before = self.told.get(lane)
        if before is not None and (before.next, before.first) == (head, first):
            return False
        self.told[lane] = Head(epoch, head, first)
        return True

    def write(self) -> None:
        """One write in place. A disk that refuses it costs the proof, not a record: it is said and tried again."""
        body = msgspec.msgpack.encode(self.told)
        sector = codec.frame(FrameKind.HEADS, 0, max((each.epoch for each in self.told.values()), default=0), 0, body)
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
            os.pwrite(self._descriptor, sector.ljust(SECTOR, b"\0"), 0)
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.warning("heads_not_told", trouble=str(error))
            self._failed = True

    def close(self) -> None:
        """Let go of the file; what it says is made durable as far as the disk allows."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.fdatasync(self._descriptor)
            os.close(self._descriptor)
        self._descriptor = -1
