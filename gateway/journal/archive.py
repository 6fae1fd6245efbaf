"""Sealed segments read beside the writer: records by seq, over connections of their own, on a thread of whoever asks.

A sealed file never changes; it is only removed, or written anew under its name where it was damaged, and what is open stays
readable in both cases. So nobody is locked out, and neither the writer nor its caches are disturbed. What is not in a
sealed file, or not as it was written, is left out: the journal itself is asked for it, and mends what is to be mended. An
archive belongs to one thread; nothing here changes the journal, its files or its accounts.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

import apsw

from gateway.journal import codec
from gateway.journal.chain import Chain
from gateway.journal.codec import PART_BITS, Definition, FrameKind, Unreadable
from gateway.journal.record import Record
from gateway.journal.segment import Segment, StorageError, contents, translated
from protocols.model import Device

MOST_OPEN: Final = 4
_ONE: Final = "SELECT frame FROM record WHERE id = ?"
_PARTS: Final = "SELECT frame FROM record WHERE id BETWEEN ? AND ? ORDER BY id"
_FROM: Final = "SELECT id, frame FROM record WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"


class Archive:
    """The sealed segments of one lane."""

    def __init__(self, chain: Chain, definitions: dict[int, Definition]) -> None:
        self._chain = chain
        self._shared = definitions
        self._learnt: dict[int, Definition] = {}
        self._open: dict[tuple[int, int, int], apsw.Connection] = {}

    def close(self) -> None:
        for each in self._open.values():
            each.close(True)
        self._open.clear()

    @property
    def is_open(self) -> bool:
        """Whether some file is open."""
        return bool(self._open)

    def tidy(self) -> None:
        """Let go of files that the journal has removed, so that their space is free."""
        kept = {_name(each) for each in _sealed(self._chain)}
        for name in [each for each in self._open if each not in kept]:
            self._open.pop(name).close(True)

    def fetch(self, seqs: Sequence[int]) -> tuple[list[Record], list[int]]:
        """The records of ``seqs`` (rising) that are in sealed files, in order, and those seqs that are not, or cannot be read here."""
        sealed = _sealed(self._chain)
        starts = [each.facts.first for each in sealed]
        found: list[Record] = []
        rest: list[int] = []
        for seq in seqs:
            place = bisect_right(starts, seq) - 1
            record = self._one(sealed[place], seq) if place >= 0 and seq <= sealed[place].facts.last else None
            if record is None:
                rest.append(seq)
            else:
                found.append(record)
        return found, rest

    def after(self, first: int, most: int) -> list[Record]:
        """At most ``most`` records from ``first`` on, without a hole, of one sealed file; [] where ``first`` is in none."""
        sealed = _sealed(self._chain)
        place = bisect_right([each.facts.first for each in sealed], first) - 1
        if place < 0 or first > sealed[place].facts.last:
            return []
        segment, found = sealed[place], list[Record]()
        with contextlib.suppress(StorageError, Unreadable), translated(segment.path):
            bounds = (first << PART_BITS, segment.facts.last + 1 << PART_BITS, most)
            for expected, (row, frame) in enumerate(self._connection(segment).execute(_FROM, bounds).fetchall(), first):
                if row != expected << PART_BITS:
                    break
                found.append(self._unpacked(segment, expected, frame))
        return found

    def _one(self, segment: Segment, seq: int) -> Record | None:
        with contextlib.suppress(StorageError, Unreadable), translated(segment.path):
            row = self._connection(segment).execute(_ONE, (seq << PART_BITS,)).fetchone()
            return self._unpacked(segment, seq, row[0]) if row is not None else None
        return None

    def _unpacked(self, segment: Segment, seq: int, frame: object) -> Record:
        """Raises Unreadable where the record is not as it was written."""
        if not isinstance(frame, bytes):
            raise Unreadable("a flipped bit made something else of it")
        head, body = codec.open_frame(frame)
        if head.parts > 1:
            bounds = (seq << PART_BITS, (seq + 1 << PART_BITS) - 1)
            rows = self._connection(segment).execute(_PARTS, bounds).fetchall()
            head, body = codec.join([each for (each,) in rows if isinstance(each, bytes)])
        if head.seq != seq or head.kind != FrameKind.RECORD:
            raise Unreadable("another record lies in its place")
        return codec.unpack(head, body, self._device(head.definition, segment))

    def _device(self, number: int, segment: Segment) -> Device:
        found = self._shared.get(number) or self._learnt.get(number)
        if found is None:
            frames = [frame for (frame,) in self._connection(segment).execute("SELECT frame FROM entry") if isinstance(frame, bytes)]
            for (kind, its_number), body in contents(frames).items():
                if kind == FrameKind.DEFINITION and its_number not in self._learnt:
                    self._learnt[its_number] = codec.undefine(its_number, body)
            found = self._learnt.get(number)
        if found is None:
            raise Unreadable("the definition of its device is lost")
        return found.device

    def _connection(self, segment: Segment) -> apsw.Connection:
        name = _name(segment)
        connection = self._open.pop(name, None)
        if connection is None:
            connection = apsw.Connection(
                f"file:{quote(str(segment.path.absolute()))}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
            )
            connection.execute("PRAGMA cache_size=-512")
        self._open[name] = connection  # the last one used stands last
        while len(self._open) > MOST_OPEN:
            self._open.pop(next(iter(self._open))).close(True)
        return connection


def _name(segment: Segment) -> tuple[int, int, int]:
    """A file that was written anew has another size, or the same content."""
    return segment.facts.epoch, segment.facts.first, segment.facts.bytes


def _sealed(chain: Chain) -> list[Segment]:
    """Taken in one step, because the writer changes the list."""
    return [each for each in list(chain.sealed) if each.sealed]
