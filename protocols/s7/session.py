"""An open S7 connection: scans groups of tags on a schedule, learns what a controller does not have, and carries out commands.

A block that is refused is halved until what is refused stands alone, within the same scan; where the halves met is remembered, so that
later scans ask rightly at once. What stands alone and is refused has a bad quality and is asked again with every scan, as an item of
a request that is sent anyway: a data block that is loaded later comes by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from protocols.clock import Clock
from protocols.contract import Admission
from protocols.model import Batch, Command, Outcome, Quality, ScanStats
from protocols.s7.answer import meaning
from protocols.s7.channel import Channel
from protocols.s7.config import S7
from protocols.s7.plan import Block, DevicePlan, Group, Plan, items_of, most_bytes, requests, split
from protocols.s7.words import raw_value
from protocols.s7.write import Writer
from protocols.schedule import Job, Schedule, phase_of
from protocols.values import Reading

MAX_FINDINGS: Final = 200
SPLITS: Final = 32
"""Blocks that one scan may halve."""
PORTION: Final = 2000
"""Readings that are made into batches at a time: some 4 ms."""
NO_BLOCK: Final = 0x0A
"""The whole data block is not there: no half of it is."""


class S7Session:
    """See the driver contract."""

    tells = True
    """See :class:`protocols.steps.Telling`."""

    def __init__(self, options: S7, plan: Plan, channel: Channel, clock: Clock, stats: ScanStats) -> None:
        self._options, self._plan, self._channel, self._clock, self._stats = options, plan, channel, clock, stats
        self._findings: list[str] = []
        self._said: set[tuple[str, int]] = set()
        self._writer = Writer(plan, channel, clock)
        self.admission: Admission | None = None

    @property
    def stats(self) -> ScanStats:
        return self._stats

    @property
    def findings(self) -> list[str]:
        """Said once each; whoever reads them clears the list. Beyond MAX_FINDINGS nothing is kept."""
        return self._findings

    async def write(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        return await self._writer.write(commands)

    async def batches(self) -> AsyncIterator[Batch]:
        schedule, clock = Schedule(self._stats), self._clock
        for at, device in enumerate(self._plan.devices):
            for place, group in enumerate(device.groups):
                schedule.add(Job(at, place, group.period_s, phase_of(self._options.name, at), float(len(group.wires))), clock.monotonic())
        while True:
            await clock.sleep_until(schedule.due)
            job = schedule.start(clock.monotonic())
            device = self._plan.devices[job.device]
            if self.admission is not None and self.admission.refusal(device.device.name):
                continue
            for batch in await self._scan(device, device.groups[job.group]):
                yield batch

    async def _scan(self, device: DevicePlan, group: Group) -> list[Batch]:
        readings: list[Reading] = []
        most = most_bytes(self._channel.pdu)
        waiting = group.blocks(max_gap=device.options.max_gap, most=most)
        budget = SPLITS
        while waiting:
            told = await self._read(waiting, most)
            refused: list[Block] = []
            for block, content in zip(waiting, told, strict=True):
                if isinstance(content, bytes):
                    readings += self._values(device, block, content)
                elif budget > 0 and content != NO_BLOCK and (halves := split(block)) is not None:
                    budget -= 1
                    group.barriers.add((block.area, block.number, halves[1].first))
                    refused += halves
                else:
                    readings += self._refused(device, block, content)
            waiting = refused
        batches: list[Batch] = []
        for first in range(0, len(readings), PORTION):
            batches += device.composer.batches(readings[first : first + PORTION])
            await asyncio.sleep(0)  # other connections have their turn
        return batches

    async def _read(self, waiting: Sequence[Block], most: int) -> list[bytes | int]:
        """Of each block its bytes, or the code with which it, or a part of it, is refused."""
        items = [(place, item) for place, block in enumerate(waiting) for item in items_of(block, most)]
        parts: list[bytes | int] = []
        for request in requests([item for _, item in items], self._channel.pdu):
            parts += await self._channel.read(request)
        whole: list[bytes | int] = [b"" for _ in waiting]
        for (place, _), part in zip(items, parts, strict=True):
            before = whole[place]
            if isinstance(before, bytes):
                whole[place] = before + part if isinstance(part, bytes) else part
        return whole

    def _values(self, device: DevicePlan, block: Block, content: bytes) -> list[Reading]:
        now_ns, tags = self._clock.time_ns(), device.options.tags
        return [
            (
                wire.slot,
                raw_value(content[wire.place.byte - block.first : wire.end - block.first], tags[wire.slot], wire.place),
                Quality.GOOD,
                now_ns,
            )
            for wire in block.wires
        ]

    def _refused(self, device: DevicePlan, block: Block, code: int) -> list[Reading]:
        now_ns = self._clock.time_ns()
        quality, words = meaning(code)
        reason = f"item_0x{code:02x}"
        self._stats.errors[reason] = self._stats.errors.get(reason, 0) + 1
        for wire in block.wires:
            tag = device.options.tags[wire.slot]
            key = (f"{device.options.name}/{tag.name}", code)
            if key not in self._said and len(self._said) < MAX_FINDINGS:
                self._said.add(key)
                self._findings.append(f"{device.options.name}: tag {tag.name} at {tag.at}: {words}")
        return [(wire.slot, None, quality, now_ns) for wire in block.wires]
