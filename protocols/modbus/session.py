"""An open Modbus connection: runs the schedule, reads the plan's blocks, learns holes, and carries out commands.

A scan only executes its group's plan. Trouble with one block is a quality; a device that misses two scans in a row is
demoted, said once, and retried alone with its cheapest request, so that it slows no other; when no device answers any
more, the connection is given up as unreachable. What the user should hear once stands in ``findings``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from protocols.clock import Clock
from protocols.contract import Admission, DriverError, Unreachable
from protocols.modbus.check import is_paced
from protocols.modbus.config import AnyConnection, ModbusTcp, ModbusTls, Network
from protocols.modbus.frames import EXCEPTIONS, Request, is_exception
from protocols.modbus.line import Line, Missed
from protocols.modbus.plan import DevicePlan, Group, Plan, split
from protocols.modbus.question import NoQuestion, question
from protocols.modbus.trace import Cutter
from protocols.modbus.wire import Block
from protocols.modbus.write import Writer
from protocols.model import Batch, Command, Outcome, Quality, ScanStats, silence
from protocols.schedule import Job, Schedule, phase_of
from protocols.trace.ring import Frame
from protocols.trace.wire import Answer

LOOK_S: Final = 1.0
"""A pause is never slept through longer than this without a look whether the connection still lives."""
LEARN_REQUESTS: Final = 32
"""Extra requests that one scan may spend on finding out what a device refuses."""
ABSENT_RETRY_S: Final = 600.0
ABSENT_RETRIES: Final = 8
"""Absent tags that are tried again at once."""
MAX_FINDINGS: Final = 200
MOMENT_NS: Final = 10_000_000
"""Answers of one scan that come within this time have one stamp, the first one's: nobody in the field samples more finely, and a
record with one stamp takes less than half of the journal's room."""

QUALITY: Final[dict[int, Quality]] = {
    1: Quality.BAD_NOT_SUPPORTED,
    2: Quality.BAD_NODE_ID_UNKNOWN,
    3: Quality.BAD_CONFIGURATION_ERROR,
    4: Quality.BAD_DEVICE_FAILURE,
    5: Quality.BAD_RESOURCE_UNAVAILABLE,
    6: Quality.BAD_RESOURCE_UNAVAILABLE,
    7: Quality.BAD_NOT_SUPPORTED,
    8: Quality.BAD_DEVICE_FAILURE,
    10: Quality.BAD_NO_COMMUNICATION,
    11: Quality.BAD_NO_COMMUNICATION,
}
"""By exception code (V1.1b3, 7)."""
UNKNOWN_PLACE: Final = (2, 3)
"""Exceptions that say: not these addresses, or not so many."""
NOBODY_THERE: Final = (10, 11)
"""A gateway says that the device behind it does not answer."""


class ModbusSession:
    """See the driver contract."""

    tells = True
    """See :class:`protocols.steps.Telling`."""

    def __init__(self, options: AnyConnection, plan: Plan, line: Line, clock: Clock, stats: ScanStats) -> None:
        self._findings: list[str] = []
        self._options = options
        self._plan = plan
        self._line = line
        self._clock = clock
        self._stats = stats
        self._schedule = Schedule(stats, options.retry_max_s)
        self._writer = Writer(plan, line, clock, self._find)
        self._absent_due: dict[int, float] = {}
        self._idle_close_s = options.idle_close_s if isinstance(options, Network) else 0.0
        self.admission: Admission | None = None

    @property
    def stats(self) -> ScanStats:
        return self._stats

    @property
    def findings(self) -> list[str]:
        """Said once each; whoever reads them clears the list. Beyond MAX_FINDINGS nothing is kept."""
        return self._findings

    @property
    def load(self) -> float | None:
        """See :class:`protocols.contract.Loaded`."""
        return sum(device.load() for device in self._plan.devices) if is_paced(self._options) else None

    async def batches(self) -> AsyncIterator[Batch]:
        self._schedule = self._fill(self._clock.monotonic())
        schedule, clock = self._schedule, self._clock
        while True:
            now = clock.monotonic()
            if schedule.due > now:
                await self._pause(schedule.due, now)
                continue
            job = schedule.start(now)
            if self.admission is not None and self.admission.refusal(self._plan.devices[job.device].device.name):
                if job.is_retry:
                    schedule.missed(job.device, now)
                continue
            for batch in await (self._retry(job) if job.is_retry else self._scan(job)):
                yield batch
            if schedule.all_demoted:
                raise Unreachable(f"{self._line.where}: connected, but no device answers: check unit ids, wiring, and the devices' power")

    async def write(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        return await self._writer.write(commands)

    def record(self, take: Callable[[Frame], None] | None) -> None:
        """See :class:`protocols.trace.wire.Recordable`."""
        is_rtu = not isinstance(self._options, ModbusTcp | ModbusTls)
        self._line.tap = None if take is None else Cutter(take, self._clock, is_rtu=is_rtu)

    async def ask(self, unit_id: int, request: bytes) -> Answer:
        """See :class:`protocols.trace.wire.Askable`."""
        try:
            return Answer(content=await self._line.ask(question(unit_id, request)))
        except Missed as miss:
            return Answer(missed=miss.reason, text=str(miss))
        except (NoQuestion, DriverError) as error:
            return Answer(missed="refused" if isinstance(error, NoQuestion) else "closed", text=str(error))

    def _fill(self, now: float) -> Schedule:
        schedule = Schedule(self._stats, self._options.retry_max_s)
        for at, device in enumerate(self._plan.devices):
            phase = phase_of(self._options.name, at)
            for place, group in enumerate(device.groups):
                cost_s = sum(device.cost.of(block) for block in group.blocks)
                schedule.add(Job(at, place, group.period_s, phase, cost_s), now)
        return schedule

    async def _pause(self, due: float, now: float) -> None:
        if self._line.trouble is not None:
            raise self._line.trouble
        if 0 < self._idle_close_s < due - now:
            await self._line.rest()
        await self._clock.sleep_until(min(due, now + LOOK_S))

    async def _scan(self, job: Job) -> list[Batch]:
        """One round of one group, and what it teaches."""
        device = self._plan.devices[job.device]
        group = device.groups[job.group]
        if group.absent:
            await self._try_absent(device, group)
        budget = LEARN_REQUESTS
        while True:
            told = await self._round(group)
            if told.away is not None:
                return self._miss(job, device, group, told)
            if group.requests:
                self._heard(job)
            if not told.refused or budget <= 0:
                return group.recipe.decode(b"".join(told.answers), told.times, told.statuses)
            budget = await self._learn(device, group, told.refused, budget)

    async def _round(self, group: Group) -> _Round:
        """Ask every block once; end early where the device is away."""
        told = _Round()
        for at, request in enumerate(group.requests):
            try:
                pdu = await self._read(request)
            except Missed as miss:
                told.give_up(at, group, miss, self._clock.time_ns())
                break
            told.heard(self._clock.time_ns())
            if pdu[0] < 0x80:
                told.answers.append(pdu)
            elif pdu[1] in NOBODY_THERE:
                self._count(pdu[1])
                told.give_up(at, group, _nobody(request, pdu[1]), told.times.pop())
                break
            else:
                self._count(pdu[1])
                told.refuse(at, group, pdu[1])
        told.times.append(told.times[-1] if told.times else self._clock.time_ns())
        return told

    async def _read(self, request: Request) -> bytes:
        """Ask; once more where noise broke the answer."""
        try:
            return await self._line.ask(request)
        except Missed as miss:
            if miss.reason != "broken":
                raise
        return await self._line.ask(request)

    def _count(self, code: int) -> None:
        reason = f"exception_{code}"
        self._stats.errors[reason] = self._stats.errors.get(reason, 0) + 1

    def _find(self, device: DevicePlan, text: str) -> None:
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(f"{device.device.name}: {text}")

    def _heard(self, job: Job) -> None:
        self._schedule.answered(job.device, self._clock.monotonic())

    def _miss(self, job: Job, device: DevicePlan, group: Group, told: _Round) -> list[Batch]:
        """The device is away: this scan's values are bad, or all of the device's when it is demoted by this."""
        if not self._schedule.missed(job.device, self._clock.monotonic()):
            return group.recipe.decode(b"".join(told.answers), told.times, told.statuses)
        self._find(device, f"{told.text}: set aside, tried again at growing intervals: check its power, wiring and unit_id")
        return silence(device.device, told.away or Quality.BAD_TIMEOUT, self._clock.time_ns(), lost=True)

    async def _retry(self, job: Job) -> list[Batch]:
        """One cheap question to a demoted device."""
        device = self._plan.devices[job.device]
        try:
            pdu = await self._line.ask(device.cheapest)
        except Missed:
            answered = False
        else:
            answered = not (is_exception(pdu) and pdu[1] in NOBODY_THERE)
        if answered:
            self._heard(job)
        else:
            self._schedule.missed(job.device, self._clock.monotonic())
        return []

    async def _learn(self, device: DevicePlan, group: Group, refused: list[Block], budget: int) -> int:
        """Find out what of the refused blocks the device lacks, and plan without it. Gives what is left of ``budget``."""
        absent: list[int] = []
        for block in refused:
            budget = await self._bisect(device, block, absent, budget)
        self._replan(device, group, absent)
        return budget

    def _replan(self, device: DevicePlan, group: Group, absent: list[int]) -> None:
        for slot in absent:
            tag, config_tag = device.device.tags[slot], device.options.tags[slot]
            self._find(device, f"tag {tag.name} at {config_tag.at}: the device has no such address: check at and address_base")
        device.replan(group, {*group.absent, *absent})
        if group.absent:
            self._absent_due.setdefault(id(group), self._clock.monotonic() + ABSENT_RETRY_S)

    async def _bisect(self, device: DevicePlan, block: Block, absent: list[int], budget: int) -> int:
        """``block`` was refused: split it and ask its parts, as far as ``budget`` goes."""
        parts = split(block, device.wires)
        if parts is None:
            absent.extend(block.slots)
            return budget
        if budget <= 0:
            return 0
        left, right = parts
        codes = [await self._refusal(device, part) for part in parts]
        budget -= 2
        if not any(codes):
            device.known.barriers.add((block.table, right.number))
            what = (
                f"no hole in it, but {block.count} at once are too many or cross a border"
                if left.end >= right.number
                else "a hole lies between"
            )
            self._find(device, f"{block} is refused, {left} and {right} are not: {what}; read apart from now on")
        for part, code in zip(parts, codes, strict=True):
            if code:
                budget = await self._bisect(device, part, absent, budget)
        return budget

    async def _refusal(self, device: DevicePlan, block: Block) -> int:
        """The exception 2 or 3 with which ``block`` is refused, or 0. A missing answer is no refusal."""
        try:
            pdu = await self._read(device.request(block))
        except Missed:
            return 0
        return pdu[1] if is_exception(pdu) and pdu[1] in UNKNOWN_PLACE else 0

    async def _try_absent(self, device: DevicePlan, group: Group) -> None:
        """Now and then: do the absent tags exist by now? They are asked one by one, so that they harm no other."""
        now = self._clock.monotonic()
        if now < self._absent_due.setdefault(id(group), now + ABSENT_RETRY_S):
            return
        self._absent_due[id(group)] = now + ABSENT_RETRY_S
        back = set()
        for slot in group.absent[:ABSENT_RETRIES]:
            try:
                pdu = await self._line.ask(device.request(device.alone(slot)))
            except Missed:
                break
            if not is_exception(pdu):
                back.add(slot)
                self._find(device, f"tag {device.device.tags[slot].name} exists by now")
        tried = group.absent[:ABSENT_RETRIES]
        device.replan(group, [slot for slot in (*group.absent[len(tried) :], *tried) if slot not in back])


@dataclass(slots=True)
class _Round:
    """What one round of a group brought."""

    answers: list[bytes] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    statuses: list[int] | None = None
    refused: list[Block] = field(default_factory=list)
    away: Quality | None = None
    text: str = ""

    def heard(self, now_ns: int) -> None:
        """An answer came."""
        last_ns = self.times[-1] if self.times else 0
        self.times.append(last_ns if 0 <= now_ns - last_ns < MOMENT_NS else now_ns)

    def refuse(self, at: int, group: Group, code: int) -> None:
        self._mark(at, group, QUALITY.get(code, Quality.BAD))
        self.answers.append(bytes(group.requests[at].expect))
        if code in UNKNOWN_PLACE:
            self.refused.append(group.blocks[at])

    def give_up(self, at: int, group: Group, miss: Missed, now_ns: int) -> None:
        """No answer to block ``at``: what follows is not asked."""
        self.away = Quality.BAD_NO_COMMUNICATION if miss.reason == "nobody" else Quality.BAD_TIMEOUT
        self.text = str(miss)
        for rest in range(at, len(group.requests)):
            self._mark(rest, group, self.away)
            self.answers.append(bytes(group.requests[rest].expect))
            self.times.append(now_ns)

    def _mark(self, at: int, group: Group, quality: Quality) -> None:
        if self.statuses is None:
            self.statuses = [Quality.GOOD] * len(group.requests)
        self.statuses[at] = quality


def _nobody(request: Request, code: int) -> Missed:
    return Missed("nobody", f"unit id {request.unit_id}: {EXCEPTIONS[code]}")
