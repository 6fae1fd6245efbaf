"""The one judge of every fault on the whole gateway, from the consumer's side: what arrived, against what the field gave.

The field (``tests/peers/fast.py``) numbers its scans and derives every value from that number; the cloud
(``tests/peers/cloud.py``) hands over what it received. So nothing has to be believed of the gateway. What is judged:

1. **Nothing wrong**: every good value is the one that the field gave in that scan.
2. **Nothing twice**: whatever comes again under the same (lane, epoch, seq) has the same content.
3. **In order**: per device, live scans rise, and so does history; only repetitions go back.
4. **No silent gap, by the numbers**: within an epoch every seq came or was told to be lost, and epochs join.
5. **No silent gap, by the field**: every scan that the field answered came, or is among the records counted as lost, or was
   in flight in a process that was killed: then it is the end of that life, and short.
6. **The ledger balances**: appended == received + dropped + quarantined once nothing is pending.

A scan whose answer was on its way when a connection ended has not been appended; at the end of a run it is at most one of
each device.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.peers.cloud import Absence, Arrival, Told
from tests.peers.fast import counter

TAGS_AT: Final = "t"
ROUND: Final = "round"
EXAMPLES: Final = 5


@dataclass(slots=True)
class Device:
    """What arrived of one device."""

    scans: set[int] = field(default_factory=set)
    live: int = 0
    history: int = 0
    records: int = 0


@dataclass(slots=True)
class Line:
    """One lane in one epoch."""

    top: int = 0
    floor: int | None = None
    had: dict[int, int] = field(default_factory=dict)
    """A digest of each record's content, by seq."""
    lost: dict[int, str] = field(default_factory=dict)

    def missing(self, first_epoch: bool) -> list[int]:
        """Seqs that exist and neither came nor were told to be lost. A cloud that was there first expects all from 1 on."""
        floor = self.floor if self.floor is not None else 1 if first_epoch else min(self.had, default=self.top + 1)
        return [seq for seq in range(floor, self.top + 1) if seq not in self.had and seq not in self.lost]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Figures of a run, for the documents. Everything that must hold has been asserted before one exists."""

    records: int
    values: int
    duplicates: int
    lost: dict[str, int]
    in_flight: int
    """Scans that a killed process had read and not yet appended."""
    longest_in_flight: int
    absent: int = 0
    """Scans that the field answered and that never came, where records are counted as lost."""
    unconfirmed: int = 0
    """Records that came and are counted as lost: dropped before their confirmation came."""
    dropped: dict[str, int] = field(default_factory=dict)
    """What the gateway's ledger counts as dropped, told or not."""


class Oracle:
    """``oracle(thing)`` takes what the cloud received, in order; :meth:`judge` says at the end whether the promise was kept."""

    def __init__(self) -> None:
        self.devices: defaultdict[str, Device] = defaultdict(Device)
        self.lines: dict[tuple[str, int], Line] = {}
        self.duplicates = 0
        self.values = 0
        self.wrong: list[str] = []
        """Each finding that breaks 1, 2 or 3, in words."""
        self.on_new: Callable[[], None] | None = None
        """Called when a record comes that had not come before, at once and in the thread that brought it."""
        self.also: list[Callable[[Arrival | Absence | Told], None]] = []
        """Who else is told, after the judge."""

    def __call__(self, thing: Arrival | Absence | Told) -> None:
        self._take(thing)
        for other in self.also:
            other(thing)

    def _take(self, thing: Arrival | Absence | Told) -> None:
        match thing:
            case Arrival():
                self._arrival(thing)
            case Absence(lane, epoch, first, last, reason):
                line = self._line(lane, epoch)
                line.lost.update({seq: reason for seq in range(first, last + 1)})
                line.top = max(line.top, last)
            case Told():
                self._told(thing)

    @property
    def records(self) -> int:
        """Different records that came."""
        return sum(len(line.had) for line in self.lines.values())

    @property
    def scans(self) -> int:
        """Different scans that came, over all devices."""
        return sum(len(device.scans) for device in self.devices.values())

    # ---- as things come

    def _arrival(self, arrival: Arrival) -> None:
        lane, epoch, seq = arrival.name
        line = self._line(lane, epoch)
        content = hash((arrival.device, arrival.rows))
        if seq in line.had:
            self.duplicates += 1
            if line.had[seq] != content:
                self.wrong.append(f"{arrival.name} of {arrival.device} came twice with different content")
            return
        if self.on_new is not None:
            self.on_new()
        line.had[seq] = content
        device = self.devices[arrival.device]
        device.records += 1
        self.values += len(arrival.rows)
        good = {row.tag: row.value for row in arrival.rows if row.value is not None}
        if ROUND in good:
            self._scan(device, arrival, good)

    def _scan(self, device: Device, arrival: Arrival, good: dict[str, Any]) -> None:  # Any: what a metric holds
        scan = good[ROUND]
        for tag, value in good.items():
            if tag.startswith(TAGS_AT) and tag[1:].isdigit() and value != raw(int(tag[1:]), scan):
                self.wrong.append(f"{arrival.device}/{tag} is {value} in scan {scan}, the field gave {raw(int(tag[1:]), scan)}")
        if scan in device.scans:
            self.wrong.append(f"scan {scan} of {arrival.device} came as {arrival.name} and under another name")
        device.scans.add(scan)
        if scan > device.live:
            device.live = scan
        elif scan > device.history:
            device.history = scan
        else:
            self.wrong.append(f"{arrival.device} goes back to scan {scan} after history up to {device.history} and {device.live}")

    def _told(self, told: Told) -> None:
        line = self._line(told.lane, told.epoch)
        line.top = max(line.top, told.last)
        if told.previous is not None:
            epoch, seq = told.previous
            earlier = self._line(told.lane, epoch)
            earlier.top = max(earlier.top, seq)
            if epoch != told.epoch:
                line.floor = told.first if line.floor is None else min(line.floor, told.first)

    def _line(self, lane: str, epoch: int) -> Line:
        return self.lines.setdefault((lane, epoch), Line())

    # ---- at the end

    def judge(
        self,
        answered: dict[str, int],
        ledger: dict[str, Any] | None = None,  # Any: JSON
        *,
        lives: int = 1,
        most_in_flight: int = 0,
        quarantined: int = 0,
    ) -> Verdict:
        """Assert every invariant above.

        ``answered`` is how many scans the field gave by device, ``ledger`` the uplink's telemetry account with nothing
        pending, ``lives`` how many processes there were; the end of each but the last may have cost a device up to
        ``most_in_flight`` scans that were not yet appended.
        """
        assert not self.wrong, f"{len(self.wrong)} findings, such as {self.wrong[:EXAMPLES]}"
        assert self.devices, "nothing arrived: the run tests nothing"
        for lane in {lane for lane, _ in self.lines}:
            first = min(epoch for name, epoch in self.lines if name == lane)
            for (name, epoch), line in self.lines.items():
                gaps = line.missing(epoch == first) if name == lane else []
                assert not gaps, f"{len(gaps)} records of {lane}, epoch {epoch}, are missing and nobody says why: {gaps[:EXAMPLES]}"
        told_lost = Counter(reason for line in self.lines.values() for reason in line.lost.values())
        self._balance(ledger, quarantined, lives)
        lost = sum(ledger["dropped"].values()) + ledger["quarantined"] if ledger else told_lost.total()
        in_flight, absent = self._compare_with_the_field(answered, lost, lives, most_in_flight)
        unconfirmed = sum(len(line.had.keys() & line.lost.keys()) for line in self.lines.values())
        longest = max(in_flight, default=0)
        dropped = dict(ledger["dropped"]) if ledger else {}
        return Verdict(self.records, self.values, self.duplicates, dict(told_lost), sum(in_flight), longest, absent, unconfirmed, dropped)

    def _balance(self, ledger: dict[str, Any] | None, quarantined: int, lives: int) -> None:  # Any: JSON
        if ledger is None:
            return
        mine = [line for (lane, _), line in self.lines.items() if lane == "telemetry"]
        had = sum(len(line.had.keys() - line.lost.keys()) for line in mine)  # both: it came, its confirmation never did, and it was dropped
        dropped = sum(ledger["dropped"].values())
        assert ledger["pending"] == 0, ledger
        assert ledger["quarantined"] <= quarantined, ledger
        assert ledger["appended"] == ledger["acknowledged"] + dropped + ledger["quarantined"], ledger
        twice = had + dropped + ledger["quarantined"] - ledger["appended"]
        # what a killed process had delivered and not yet noted may have been dropped later, and was counted then
        assert 0 <= twice <= (dropped if lives > 1 else 0), f"{had} records came; the ledger says {ledger}"

    def _compare_with_the_field(self, answered: dict[str, int], lost: int, lives: int, most_in_flight: int) -> tuple[list[int], int]:
        """Lengths of the gaps that are explained by a process that was killed; scans that never came, where some are counted as lost."""
        in_flight: list[int] = []
        unexplained = 0
        for name, last in answered.items():
            scans = self.devices[name].scans
            assert scans <= set(range(1, last + 1)), f"{name}: scans came that the field never gave"
            gaps = runs(scan for scan in range(1, last + 1) if scan not in scans)
            if gaps and gaps[-1] == (last, last):
                gaps.pop()  # asked for, and the connection was taken away before the answer
            if lost:
                unexplained += sum(end - begin + 1 for begin, end in gaps)
                continue
            assert len(gaps) < lives, f"{name}: gaps {gaps[:EXAMPLES]} in {last} scans, but only {lives - 1} processes were killed"
            in_flight += [end - begin + 1 for begin, end in gaps]
        assert unexplained <= lost + (lives - 1) * most_in_flight * len(answered), (
            f"{unexplained} scans never came, {lost} are counted as lost"
        )
        assert max(in_flight, default=0) <= most_in_flight, f"a killed process took {max(in_flight)} scans of a device with it"
        return in_flight, unexplained


def raw(pair: int, scan: int) -> int:
    """The float32 of register pair ``pair`` in ``scan``, as the uint32 that it is read as."""
    return int.from_bytes(struct.pack(">f", counter(pair, scan)), "big")


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Rising numbers as inclusive spans."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return spans
