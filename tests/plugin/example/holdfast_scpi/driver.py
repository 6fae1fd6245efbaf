"""The driver: scans on a drift-free schedule, commands read back, a probe. Where something waits it waits for the instrument.

One connection is one instrument, and the line to it takes one exchange at a time, so a command waits for one query at most.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from protocols.clock import Clock
from protocols.contract import DriverError, ProbeReport, Problem, Unreachable
from protocols.model import Batch, Command, Device, Outcome, OutcomeState, Quality, ScanStats
from protocols.schedule import Job, Schedule, phase_of
from protocols.values import Composer, Reading, Unwritable, is_same, raw_of, value_of

from .config import Scpi, ScpiTag, check_scpi, devices_of
from .line import Line
from .words import parameter, raw_value

UNKNOWN: Final = range(-113, -109)
"""Errors that say that the instrument does not know the query (SCPI-1999, 21.8.9)."""
MAX_FINDINGS: Final = 200


class ScpiSession:
    """See the driver contract."""

    def __init__(self, options: Scpi, devices: Sequence[Device], line: Line, clock: Clock, stats: ScanStats) -> None:
        self._options, self._devices, self._line, self._clock, self._stats = options, devices, line, clock, stats
        self._composers = [Composer(device, each.tags) for device, each in zip(devices, options.devices, strict=True)]
        self._findings: list[str] = []
        self._said: set[str] = set()

    @property
    def stats(self) -> ScanStats:
        return self._stats

    @property
    def findings(self) -> list[str]:
        return self._findings

    async def batches(self) -> AsyncIterator[Batch]:
        schedule = Schedule(self._stats)
        for place, device in enumerate(self._options.devices):
            if device.tags:
                schedule.add(Job(place, 0, device.scan_s, phase_of(self._options.name, place), 0.0), self._clock.monotonic())
        while True:
            await self._clock.sleep_until(schedule.due)
            job = schedule.start(self._clock.monotonic())
            for batch in await self._scan(job.device):
                yield batch

    async def _scan(self, place: int) -> list[Batch]:
        readings: list[Reading] = []
        for slot, tag in enumerate(self._options.devices[place].tags):
            answer, code, text = await self._line.ask(tag.at)
            raw, quality = raw_value(answer, tag.kind), Quality.GOOD
            if code:
                quality = Quality.BAD_NODE_ID_UNKNOWN if code in UNKNOWN else Quality.BAD_DEVICE_FAILURE
                self._find(f"tag {tag.name} at {tag.at}: the instrument says {code}, {text}: check at in its manual")
            readings.append((slot, raw, quality, self._clock.time_ns()))
        return self._composers[place].batches(readings)

    def _find(self, text: str) -> None:
        if text not in self._said and len(self._said) < MAX_FINDINGS:
            self._said.add(text)
            self._findings.append(text)

    async def write(self, commands: Sequence[Command]) -> Sequence[Outcome]:
        return [await self._outcome(command) for command in commands]

    async def _outcome(self, command: Command) -> Outcome:
        try:
            state, detail, value = await self._carry_out(command)
        except Unwritable as error:
            state, detail, value = OutcomeState.REFUSED, str(error), None
        except TimeoutError:
            state, detail, value = OutcomeState.EXPIRED, "its deadline passed before it could be sent", None
        except Unreachable as error:
            state, detail, value = OutcomeState.FAILED, f"nobody can say whether it was carried out: {error}", None
        return Outcome(command=command.id, state=state, time_ns=self._clock.time_ns(), detail=detail, read_back=value)

    async def _carry_out(self, command: Command) -> tuple[OutcomeState, str, bool | int | float | str | bytes | None]:
        tag = self._place(command)
        told = raw_of(command.value, tag)
        left_s = (command.deadline_ns - self._clock.time_ns()) / 1e9
        if left_s < 0:
            raise TimeoutError
        deadline = asyncio.get_running_loop().time() + left_s
        _, code, text = await self._line.ask(tag.command.replace("{value}", parameter(told)), deadline)
        if code:
            return OutcomeState.REFUSED, f"the instrument says {code}, {text}", None
        answer, code, text = await self._line.ask(tag.at)
        seen = raw_value(answer, tag.kind)
        value, quality = value_of(seen, tag)
        if code or quality is not Quality.GOOD:
            return OutcomeState.FAILED, f"it was taken, and {tag.at} then gave {answer[:50]!r} {text}: nobody can say what holds", None
        if is_same(told, seen, tag):
            return OutcomeState.VERIFIED, "", value
        return OutcomeState.MISMATCH, f"it was taken, and {tag.at} gives {answer[:50]}", value

    def _place(self, command: Command) -> ScpiTag:
        """The tag that ``command`` names, if it may be written. Raises Unwritable."""
        for device in self._options.devices:
            for tag in device.tags:
                if (device.name, tag.name) == (command.device, command.tag):
                    if not tag.writable:
                        raise Unwritable(f"tag {tag.name} is not writable: set writable in the configuration")
                    return tag
        raise Unwritable(f"there is no tag {command.tag} of a device {command.device} on this connection")


class ScpiDriver:
    """See the driver contract."""

    name = "scpi"
    options: type[msgspec.Struct] = Scpi

    def __init__(self) -> None:
        self._devices: dict[int, tuple[weakref.ref[Scpi], Sequence[Device]]] = {}

    def check(self, options: Any) -> Sequence[Problem]:  # Any: the contract's; a Scpi
        return list(check_scpi(options))

    def devices(self, options: Any) -> Sequence[Device]:  # Any: as above
        """The devices of this very object: the contract wants the same ones each time."""
        key = id(options)
        if key not in self._devices:
            forget = weakref.ref(options, lambda _: self._devices.pop(key, None))
            self._devices[key] = (forget, devices_of(options))
        return self._devices[key][1]

    @asynccontextmanager
    async def open(self, options: Any, *, clock: Clock) -> AsyncIterator[ScpiSession]:  # Any: as above
        stats = ScanStats()
        line = Line(options.host, options.port, options.timeout_s, stats)
        try:
            await line.open()
            yield ScpiSession(options, self.devices(options), line, clock, stats)
        finally:
            await line.close()

    async def probe(self, options: Any) -> ProbeReport:  # Any: as above
        line = Line(options.host, options.port, options.timeout_s, ScanStats())
        try:
            await line.open()
            name, _, _ = await line.ask("*IDN?")
            findings = [f"{line.where}: {name or 'an instrument that does not tell its name'}"]
            ok = True
            for tag in (tag for device in options.devices for tag in device.tags):
                answer, code, text = await line.ask(tag.at)
                if code or value_of(raw_value(answer, tag.kind), tag)[1] is not Quality.GOOD:
                    ok = False
                    findings.append(f"tag {tag.name} at {tag.at}: {answer[:50]!r} {text}: check at and kind")
            return ProbeReport(ok=ok, findings=tuple(findings))
        except DriverError as error:
            return ProbeReport(ok=False, findings=(str(error),))
        finally:
            await line.close()


SCPI: Final = ScpiDriver()
