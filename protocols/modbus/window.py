"""Reads as much of a device's registers as a budget allows, without knowing its map: large blocks first, holes narrowed down.

What a device refuses is asked again in halves, later: first everything is seen roughly, then finely. A device that gives fewer
registers at once says so by "illegal data value", which is learnt once; a table that it does not have is left alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final

from protocols.contract import Unreachable
from protocols.modbus.address import Table
from protocols.modbus.find import TABLES, Window
from protocols.modbus.frames import EXCEPTIONS, is_exception
from protocols.modbus.line import Missed
from protocols.modbus.question import Asker, read
from protocols.modbus.scan import NOBODY_THERE, Spent, Told

MOST: Final = 125
MISSES: Final = 3
"""Questions in a row without an answer, from the first on: nobody is there."""
SILENT_LEVELS: Final = 4
"""What stays without an answer costs a time-out: its halves come so much later than those of what is refused."""
MAX_GAP: Final = 16
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3


class Survey:
    """The registers of one unit id, as far as they have been read."""

    def __init__(self, asker: Asker, unit_id: int, told: Told) -> None:
        self._asker, self._unit_id, self._told = asker, unit_id, told
        self.window = Window()
        self.spent = ""
        """Why not everything was read; empty where it was."""
        self._todo: list[tuple[int, int, int, int]] = []
        """Level, first, table, count."""
        self._most = MOST
        self._largest = 0
        """Registers of the largest answer so far."""
        self._absent: set[Table] = set()
        self._misses = 0

    async def read(self, first: int = 0, last: int = 65535, tables: Sequence[Table] = TABLES) -> Window:
        """Read ``first`` to ``last`` of ``tables``. Raises Unreachable where nobody answers, or the asker's DriverError."""
        self._todo = [(0, at, TABLES.index(table), min(MOST, last + 1 - at)) for at in range(first, last + 1, MOST) for table in tables]
        heapq.heapify(self._todo)
        try:
            while self._todo:
                await self._step(*heapq.heappop(self._todo))
        except Spent as spent:
            self.spent = str(spent)
        return self.window

    def through(self, asker: Asker) -> None:
        """Ask through ``asker`` from now on."""
        self._asker = asker

    async def again(self, places: dict[Table, list[tuple[int, int]]]) -> Window:
        """Read what lies at ``places`` (first and count, sorted) anew, into a window of its own. Raises as ``read``, and Spent."""
        fresh = Window()
        for table, spans in places.items():
            for at, count in self._merged(table, spans):
                pdu = await self._asker.ask(read(self._unit_id, table, at, count))
                if not is_exception(pdu):
                    fresh.put(table, at, pdu[2:])
        return fresh

    def _merged(self, table: Table, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Few requests for ``spans``, none of which crosses a register that is not known to be there."""
        merged: list[tuple[int, int]] = []
        for at, count in spans:
            if merged:
                begin, size = merged[-1]
                end = max(begin + size, at + count)
                near = at - (begin + size) <= MAX_GAP and end - begin <= max(self._largest, 1)
                if near and self.window.known[table][begin:end].all():
                    merged[-1] = (begin, end - begin)
                    continue
            merged.append((at, count))
        return merged

    async def _step(self, level: int, first: int, at: int, count: int) -> None:
        table = TABLES[at]
        if table in self._absent:
            return
        if count > self._most:
            self._split(level, first, at, count)
            return
        self._told(f"unit id {self._unit_id}: {table} {first}..{first + count - 1}, {self.window.count()} registers so far")
        try:
            pdu = await self._asker.ask(read(self._unit_id, table, first, count))
        except Missed as miss:
            self._miss(str(miss))
            self._split(level + SILENT_LEVELS, first, at, count)
            return
        self._misses = -1  # it lives: from now on silence is a kind of refusal
        if not is_exception(pdu):
            self.window.put(table, first, pdu[2:])
            self._largest = max(self._largest, count)
        else:
            self._refused(pdu[1], level, first, at, count)

    def _miss(self, text: str) -> None:
        if self._misses < 0:
            return
        self._misses += 1
        if self._misses >= MISSES:
            raise Unreachable(f"unit id {self._unit_id} does not answer ({text}): check the unit id, or find it with holdfast scan")

    def _refused(self, code: int, level: int, first: int, at: int, count: int) -> None:
        if code in NOBODY_THERE:
            raise Unreachable(f"unit id {self._unit_id}: {EXCEPTIONS[code]}: the gateway is there, the device is not")
        if code == ILLEGAL_FUNCTION:
            self._absent.add(TABLES[at])
            return
        if code == ILLEGAL_VALUE and self._largest < count and count > 1:
            self._most = min(self._most, max(count // 2, self._largest, 1))
        self._split(level + 1, first, at, count)

    def _split(self, level: int, first: int, at: int, count: int) -> None:
        """Ask for the halves later; both begin at even places where they can, as most values do."""
        if count < 2:
            return
        half = count // 2 - count // 2 % 2 or 1
        heapq.heappush(self._todo, (level, first, at, half))
        heapq.heappush(self._todo, (level, first + half, at, count - half))
