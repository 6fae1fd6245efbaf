"""The consumer's account of one gateway: which records came, which came twice, which are missing. Pure.

A record is ``(lane, epoch, seq)``. Within a lane and an epoch seqs rise by one, so what has been seen is a set of spans and
what is missing are its gaps. A ledger mark adds two things: records exist up to its ``last`` even if none of them came, and
the window's sums tell whether every message of it came unharmed.

What lies before the first good mark that is not history (or, without marks, the first live record) was before our time:
unknown, not missing, unless the consumer was there from the gateway's first record (``from_beginning``).

Memory is bounded: spans, not seqs; open windows, half records and remembered marks have limits.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from gateway.journal.record import Lane
from gateway.uplink.mark import LostSpan, Mark, Stamp, Tally
from gateway.uplink.spans import Span, Spans

MAX_WINDOWS: Final = 1024
"""Windows whose mark has not come. Those of a broken connection never get one."""
MAX_HALF_RECORDS: Final = 10_000
MAX_SPANS: Final = 100_000
MAX_MARKS_KEPT: Final = 4096
SPANS_TOLD: Final = 20

Line = tuple[Lane, int]
"""A lane in one epoch: seqs rise by one along it."""


class DeviceVerdict(msgspec.Struct, kw_only=True):
    """One device, in records (``values`` in values)."""

    received: int = 0
    duplicate: int = 0
    values: int = 0
    disorder: int = 0
    """Records that came after a later one of the same device, both live or both history."""


class MissingSpan(msgspec.Struct, frozen=True):
    lane: Lane
    epoch: int
    first: int
    last: int


class Verdict(msgspec.Struct, kw_only=True):
    """What became of a gateway's records, as far as this consumer can know. Counts are records unless they say otherwise."""

    received: int
    duplicate: int
    missing: int
    values: int
    lost: dict[str, int]
    """What the gateway said it had to lose, by reason."""
    disorder: int
    marks: int
    """Ledger marks whose sums were right."""
    marks_wrong: int
    """Ledger marks whose sums were not: messages of their window did not come, or came changed."""
    devices: dict[str, DeviceVerdict]
    missing_spans: Annotated[list[MissingSpan], msgspec.Meta(max_length=SPANS_TOLD)]
    """The first of them."""
    malformed: int = 0
    """Messages that could not be read."""
    rebirths: int = 0
    """How often a rebirth was asked for."""
    unsure: str = ""
    """Why this verdict may be incomplete; empty when it is not."""

    @property
    def ok(self) -> bool:
        """Everything that was to come has come, in order."""
        return not (self.missing or self.disorder or self.unsure)


@dataclass(frozen=True, slots=True)
class Checked:
    """What a mark was found to be. Only a good one may be acknowledged."""

    mark: Mark
    good: bool
    why: str = ""


@dataclass(slots=True)
class _Seen:
    """One line: what came, what the gateway lost, and between which seqs anything is expected."""

    received: Spans = field(default_factory=Spans)
    lost: Spans = field(default_factory=Spans)
    floor: int | None = None
    """The first seq that is expected to come; None while nobody knows."""
    top: int = -1
    """The last seq that is known to exist."""

    def gaps(self) -> list[Span]:
        if self.floor is None or self.top < self.floor:
            return []
        missing = Spans(self.received.gaps(self.floor, self.top))
        for first, last in self.lost:
            missing.remove(first, last)
        return list(missing)


class Account:
    """One gateway's account. ``arrived`` and ``deliver`` for data messages, ``mark`` for marks, ``verdict`` at any time."""

    def __init__(self, *, from_beginning: bool = False) -> None:
        self._from_beginning = from_beginning
        self._lines: dict[Line, _Seen] = {}
        self._windows: OrderedDict[int, Tally] = OrderedDict()
        self._marks: OrderedDict[int, Checked] = OrderedDict()
        self._halves: OrderedDict[tuple[Line, int, int], set[int]] = OrderedDict()
        self._latest: dict[tuple[str, Lane, bool], tuple[int, int]] = {}
        self._unordered: OrderedDict[int, list[tuple[str, Stamp]]] = OrderedDict()
        self._devices: dict[str, DeviceVerdict] = {}
        self._lost: Counter[str] = Counter()
        self._marks_good = 0
        self._marks_wrong = 0
        self._unsure = ""

    def arrived(self, stamp: Stamp, payload: bytes, values: int) -> None:
        """A message of a window came, whether or not it can be decoded yet: add it to the window's sums."""
        tally = self._windows.get(stamp.window)
        if tally is None:
            tally = self._windows[stamp.window] = Tally()
            if len(self._windows) > MAX_WINDOWS:
                self._windows.popitem(last=False)
        tally.add(payload, values)

    def deliver(self, device: str, stamp: Stamp, values: int, *, historical: bool) -> bool:
        """A message was decoded. Returns whether it brought anything new; if not, throw it away: you have it already."""
        told = self._devices.setdefault(device, DeviceVerdict())
        line = self._line((stamp.lane, stamp.epoch))
        known = sum(seq in line.received for seq in stamp.seqs)
        told.duplicate += known
        if known == len(stamp.seqs):
            return False
        told.values += values
        if not self._completes(stamp):
            return True
        if not historical and line.floor is None and not stamp.window:  # with windows, the first good mark says where we began
            line.floor = stamp.seqs[0]
        told.received += sum(line.received.add(seq, seq) for seq in stamp.seqs)
        if stamp.window:
            self._note_order(device, stamp)
        else:
            told.disorder += self._out_of_order(device, stamp, historical)
        line.top = max(line.top, stamp.seqs[-1])
        return True

    def lose(self, lane: Lane, epoch: int, spans: tuple[LostSpan, ...]) -> None:
        """The gateway says that it can never deliver these."""
        line = self._line((lane, epoch))
        for span in spans:
            self._lost[span.reason] += line.lost.add(span.first, span.last)
            line.top = max(line.top, span.last)

    def mark(self, mark: Mark) -> Checked:
        """Check a ledger mark against what came. The same mark again gets the same answer."""
        before = self._marks.get(mark.window)
        if before is not None and before.mark == mark:
            return before
        line = self._line((mark.lane, mark.epoch))
        self._join(mark, line)
        self.lose(mark.lane, mark.epoch, mark.lost)
        line.top = max(line.top, mark.last)
        for device, stamp in self._unordered.pop(mark.window, ()):
            self._devices[device].disorder += self._out_of_order(device, stamp, mark.historical)
        checked = self._compare(mark, line, self._windows.pop(mark.window, Tally()))
        began = line.floor is not None or mark.historical
        if not began:  # a window that began before us is nobody's fault
            line.floor = mark.first if checked.good else mark.last + 1
        self._marks_good += checked.good
        self._marks_wrong += began and not checked.good
        return self._remember(checked)

    def verdict(self) -> Verdict:
        missing = [MissingSpan(lane, epoch, *span) for (lane, epoch), line in self._lines.items() for span in line.gaps()]
        devices = self._devices.values()
        return Verdict(
            received=sum(device.received for device in devices),
            duplicate=sum(device.duplicate for device in devices),
            missing=sum(span.last - span.first + 1 for span in missing),
            values=sum(device.values for device in devices),
            lost=dict(self._lost),
            disorder=sum(device.disorder for device in devices),
            marks=self._marks_good,
            marks_wrong=self._marks_wrong,
            devices=dict(sorted(self._devices.items())),
            missing_spans=missing[:SPANS_TOLD],
            unsure=self._unsure,
        )

    def interrupted(self) -> None:
        """This consumer was away: what it missed comes again, later than what came meanwhile, and that is no disorder."""
        self._latest.clear()
        self._unordered.clear()

    def doubt(self, why: str) -> None:
        """Something happened after which the account may be incomplete."""
        self._unsure = self._unsure or why

    # ----

    def _line(self, key: Line) -> _Seen:
        line = self._lines.get(key)
        if line is None:
            first_epoch = not any(lane is key[0] for lane, _ in self._lines)
            line = self._lines[key] = _Seen(floor=1 if self._from_beginning and first_epoch else None)
        if len(line.received) > MAX_SPANS:
            self.doubt(f"more than {MAX_SPANS} separate spans came: this gateway's numbers make no sense")
        return line

    def _completes(self, stamp: Stamp) -> bool:
        """Whether every part of the record is there now. (Only a message with one record comes in parts.)"""
        if stamp.parts == 1:
            return True
        key = ((stamp.lane, stamp.epoch), stamp.seqs[0], stamp.parts)
        parts = self._halves.setdefault(key, set())
        parts.add(stamp.part)
        if len(parts) == stamp.parts:
            del self._halves[key]
            return True
        if len(self._halves) > MAX_HALF_RECORDS:
            self._halves.popitem(last=False)
        return False

    def _note_order(self, device: str, stamp: Stamp) -> None:
        """Whether a window is live or history is told by its mark alone: births make single live messages history."""
        self._unordered.setdefault(stamp.window, []).append((device, stamp))
        if len(self._unordered) > MAX_WINDOWS:
            self._unordered.popitem(last=False)

    def _out_of_order(self, device: str, stamp: Stamp, historical: bool) -> int:
        key = (device, stamp.lane, historical)
        latest = self._latest.get(key)
        self._latest[key] = (stamp.epoch, stamp.seqs[-1])
        if latest is None or latest[0] != stamp.epoch:
            return 0
        return sum(seq < latest[1] for seq in stamp.seqs)

    def _join(self, mark: Mark, line: _Seen) -> None:
        """``previous`` ties epochs together: what the earlier one had up to there, it must have delivered."""
        if mark.previous is None:
            return
        epoch, seq = mark.previous
        earlier = self._lines.get((mark.lane, epoch))
        if earlier is not None and earlier.floor is not None:
            earlier.top = max(earlier.top, seq)
            if epoch != mark.epoch:
                line.floor = mark.first if line.floor is None else min(line.floor, mark.first)

    def _compare(self, mark: Mark, line: _Seen, tally: Tally) -> Checked:
        if (tally.messages, tally.values, tally.digest) != (mark.messages, mark.values, mark.digest):
            return Checked(mark, False, f"{tally.messages} of {mark.messages} messages and {tally.values} of {mark.values} values came")
        missing = Spans(line.received.gaps(mark.first, mark.last))
        for span in mark.lost:
            missing.remove(span.first, span.last)
        if missing.count():
            return Checked(mark, False, f"{missing.count()} of its records could not be read")
        return Checked(mark, True)

    def _remember(self, checked: Checked) -> Checked:
        self._marks[checked.mark.window] = checked
        if len(self._marks) > MAX_MARKS_KEPT:
            self._marks.popitem(last=False)
        return checked
