"""Which registers hold the number that a display shows: every place, kind, order and scale that gives it. Pure, in columns.

A display rounds: 230.4 stands for anything from 230.35 to 230.45, and while the registers were read the value may have moved,
so what lies within ``drift`` of it is kept too, further down. Each way to read the registers is tried on all of them at once
with NumPy; what fits is ranked by how common it is among devices. A second reading of the display throws out what was there
by chance: constants do not follow the display.

Costs are penalties in no unit: 0 is what most devices do. The tables below are the whole of that judgement.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocols.modbus.address import Table
from protocols.modbus.config import Order
from protocols.model import Kind
from protocols.quiet import quietly

ADDRESSES: Final = 65536
MAX_MATCHES: Final = 20_000
MAX_TEXT: Final = 40
TABLES: Final = (Table.HOLDING, Table.INPUT)
NEAR_COST: Final = 3.0
"""Of a value that is only near what the display shows."""
ODD_COST: Final = 0.2
"""Of a value of several registers that begins at an odd address."""
WORD_COST, BYTE_COST, BOTH_COST = 0.6, 1.5, 1.8
"""Of a low word first, of swapped bytes, of both."""
BCD_COST: Final = 2.5
STILL_COST: Final = 4.0
"""Of a register that stayed as it was although the display did not."""

_SHOWN: Final = re.compile(r"([-−+]?)((?:[0-9][0-9 ,.'’]*)?[0-9]) ?((?![eE][-+0-9])[^0-9\s.,][^\s]{0,15})?")
_PREFIX: Final[dict[str, int]] = {"k": 3, "K": 3, "M": 6, "G": 9}
_PREFIXED: Final = re.compile(r"[kKMG](W|V|A|var|VA|Hz|Pa|J|Ω|g|m|l|bar)")


class NotANumber(ValueError):
    """What was typed is no reading of a display. The text says what to type."""


class Shown(msgspec.Struct, frozen=True):
    """What a display shows."""

    value: float
    decimals: int
    unit: str = ""

    @property
    def half(self) -> float:
        """Half of the last digit: what rounding hides."""
        return float(0.5 * 10.0**-self.decimals)

    @property
    def power(self) -> int:
        """Power of ten that the unit's prefix stands for: 3 of kWh."""
        return _PREFIX[self.unit[0]] if _PREFIXED.match(self.unit) else 0


def shown(text: str) -> Shown:
    """``"230.4"``, ``"-12,5 A"``, ``"1.234 kWh"``, ``"12 345.6"`` as a reading. A single point or comma is a decimal one.

    Raises NotANumber.
    """
    match = _SHOWN.fullmatch(text.strip()) if len(text) <= MAX_TEXT else None
    points = re.findall(r"[.,]", match[2]) if match else []
    if match is None or (len(set(points)) > 1 and points.count(points[-1]) > 1):
        raise NotANumber(f"{text[:MAX_TEXT]!r} is no number: type what the display shows, such as 230.4 or '1.234 kWh'")
    digits = re.sub(r"[ '’]", "", match[2])
    whole, _, decimals = digits.rpartition(points[-1]) if points and points.count(points[-1]) == 1 else (digits, "", "")
    number = float(re.sub(r"[.,]", "", whole or "0") + "." + (decimals or "0"))
    if number == 0:
        raise NotANumber("0 fits too many registers: wait until the display shows something else, or take another value of it")
    return Shown(-number if match[1] in ("-", "−") else number, len(decimals), (match[3] or "").strip())


class Form(msgspec.Struct, frozen=True):
    """One way to read registers, in the words of a tag's options."""

    kind: Kind
    words: int
    word_order: Order = "big"
    byte_order: Order = "big"
    bcd: bool = False

    @property
    def cost(self) -> float:
        swapped = {("big", "big"): 0.0, ("little", "big"): WORD_COST, ("big", "little"): BYTE_COST, ("little", "little"): BOTH_COST}
        return KIND_COST[self.kind] + BCD_COST * self.bcd + swapped[self.word_order, self.byte_order]

    def __str__(self) -> str:
        extra = [f"{name}_order little" for name in ("word", "byte") if getattr(self, f"{name}_order") == "little"]
        return ", ".join([str(self.kind) + (" (bcd)" if self.bcd else ""), *extra])


KIND_COST: Final[dict[Kind, float]] = {
    Kind.FLOAT32: 0.0,
    Kind.UINT16: 0.2,
    Kind.INT16: 0.3,
    Kind.UINT32: 0.4,
    Kind.INT32: 0.5,
    Kind.FLOAT64: 0.8,
    Kind.UINT64: 0.9,
    Kind.INT64: 1.0,
}
_FLOATS: Final = (Kind.FLOAT32, Kind.FLOAT64)
_SIGNED: Final = (Kind.INT16, Kind.INT32, Kind.INT64)
ORDERS: Final[tuple[Order, Order]] = ("big", "little")


def _forms() -> Iterator[Form]:
    for byte_order in ORDERS:
        yield Form(Kind.UINT16, 1, byte_order=byte_order)
        yield Form(Kind.INT16, 1, byte_order=byte_order)
        for word_order in ORDERS:
            for kind, words in ((Kind.FLOAT32, 2), (Kind.UINT32, 2), (Kind.INT32, 2), (Kind.FLOAT64, 4), (Kind.UINT64, 4), (Kind.INT64, 4)):
                yield Form(kind, words, word_order, byte_order)
    yield Form(Kind.UINT16, 1, bcd=True)
    for word_order in ORDERS:
        yield Form(Kind.UINT32, 2, word_order, bcd=True)


FORMS: Final = tuple(_forms())
FLOAT_POWERS: Final[dict[int, float]] = {0: 0.0, -3: 1.0, 3: 1.0, -6: 2.5, 6: 2.5, -1: 2.0, 1: 2.0, -2: 2.2, 2: 2.2}
"""Powers of ten by which a float may be scaled, with what each costs."""
FINER_COST: Final = (0.0, 0.5, 0.8, 1.0, 2.0, 2.5, 3.0)
"""Of an integer that holds 0, 1, 2 ... digits more than the display shows."""
COARSER_COST: Final = (0.0, 1.0, 1.5, 2.0, 2.5)
"""Of an integer that holds as many digits less: the display's last ones are 0."""


def powers(form: Form, reading: Shown) -> list[tuple[int, float]]:
    """Powers of ten that may scale ``form``, with what each costs."""
    if form.kind in _FLOATS:
        eased = {-reading.power: 0.3, 3 - reading.power: 0.6} if reading.power else {}
        return [(power, min(cost, eased.get(power, cost))) for power, cost in FLOAT_POWERS.items()]
    finer = [(-reading.decimals - more, cost) for more, cost in enumerate(FINER_COST)]
    return finer + [(less - reading.decimals, cost) for less, cost in enumerate(COARSER_COST) if less]


@dataclass
class Window:
    """What is known of a device's registers. Both columns have 65,536 places for each table."""

    words: dict[Table, NDArray[np.uint16]] = field(default_factory=lambda: {table: np.zeros(ADDRESSES, np.uint16) for table in TABLES})
    known: dict[Table, NDArray[np.bool_]] = field(default_factory=lambda: {table: np.zeros(ADDRESSES, np.bool_) for table in TABLES})

    def put(self, table: Table, first: int, content: bytes) -> None:
        """Registers as they came over the wire."""
        words = np.frombuffer(content, dtype=">u2")
        self.words[table][first : first + len(words)] = words
        self.known[table][first : first + len(words)] = True

    def count(self) -> int:
        return int(sum(int(known.sum()) for known in self.known.values()))


class Match(msgspec.Struct, frozen=True):
    """One way in which a device's registers give what its display shows."""

    table: Table
    number: int
    form: Form
    power: int
    """The scale is ten to this."""
    raw: float
    """What the registers held, before scaling."""
    cost: float
    exact: bool = True
    """Whether it gives just what the display shows; else it is near."""

    @property
    def value(self) -> float:
        return self.raw * 10.0**self.power

    @property
    def at(self) -> str:
        return f"{self.table}:{self.number}"


def search(window: Window, reading: Shown, *, drift: float = 0.0) -> list[Match]:
    """Everything in ``window`` that gives ``reading``, or is within the share ``drift`` of it; the likeliest first."""
    found = [part for table in TABLES for part in quietly(_search_table, window, table, reading, drift)]
    if not found:
        return []
    columns = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    best = np.argsort(columns["cost"], kind="stable")[:MAX_MATCHES]
    return [
        Match(
            TABLES[int(columns["table"][at])],
            int(columns["number"][at]),
            FORMS[int(columns["form"][at])],
            int(columns["power"][at]),
            float(columns["raw"][at]),
            round(float(columns["cost"][at]), 3),
            bool(columns["exact"][at]),
        )
        for at in best
    ]


_Part = dict[str, NDArray[Any]]  # Any: each column has its own element type


def _search_table(window: Window, table: Table, reading: Shown, drift: float) -> list[_Part]:
    known = window.known[table]
    if not known.any():
        return []
    found = []
    for at, form in enumerate(FORMS):
        raw = _column(window.words[table], form)
        there = known[: len(raw)].copy()
        for word in range(1, form.words):
            there &= known[word : word + len(raw)]
        if form.bcd:
            there &= ~np.isnan(raw)
        if form.kind in _SIGNED:
            there &= raw < 0  # else it is the unsigned kind's
        for power, cost in powers(form, reading):
            if len(part := _fitting(raw, there, reading, power, drift)):
                found.append(_part(TABLES.index(table), at, power, raw[part], part, form.cost + cost, reading))
    return found


def _part(table: int, form: int, power: int, raw: NDArray[np.float64], number: NDArray[np.intp], cost: float, reading: Shown) -> _Part:
    exact = np.abs(raw * 10.0**power - reading.value) <= _slack(reading)
    odd = (number % 2 == 1) & (FORMS[form].words > 1)
    size = len(number)
    return {
        "table": np.full(size, table),
        "form": np.full(size, form),
        "power": np.full(size, power),
        "number": number,
        "raw": raw,
        "exact": exact,
        "cost": cost + ODD_COST * odd + NEAR_COST * ~exact,
    }


def _slack(reading: Shown) -> float:
    """Half of the last digit, and a hair for what floats cannot hold."""
    return reading.half + 1e-7 * abs(reading.value)


def _fitting(raw: NDArray[np.float64], there: NDArray[np.bool_], reading: Shown, power: int, drift: float) -> NDArray[np.intp]:
    """Places whose scaled value fits."""
    slack = max(_slack(reading), drift * abs(reading.value))
    scale = 10.0**power
    low, high = (reading.value - slack) / scale, (reading.value + slack) / scale
    return np.flatnonzero((raw >= low) & (raw <= high) & there)


def _column(words: NDArray[np.uint16], form: Form) -> NDArray[np.float64]:
    """What ``form`` makes of the registers from each place on; the last places, where it would not fit, are left out."""
    if form.byte_order == "little":
        words = words.byteswap()
    size = len(words) - form.words + 1
    parts = [words[at : at + size] for at in range(form.words)]
    if form.word_order == "little":
        parts.reverse()
    bits = parts[0].astype(np.uint64)
    for part in parts[1:]:
        bits = bits << np.uint64(16) | part
    return _bcd(bits, 4 * form.words) if form.bcd else _numbers(bits, form.kind)


def _numbers(bits: NDArray[np.uint64], kind: Kind) -> NDArray[np.float64]:
    if kind is Kind.FLOAT32:
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)
    if kind is Kind.FLOAT64:
        return bits.view(np.float64)
    if kind in _SIGNED:
        return bits.astype(f"uint{str(kind)[3:]}").view(str(kind)).astype(np.float64)
    return bits.astype(np.float64)


def _bcd(bits: NDArray[np.uint64], digits: int) -> NDArray[np.float64]:
    """Four bits a decimal digit; NaN where one of them is above 9."""
    number, wrong = np.zeros(len(bits)), np.zeros(len(bits), np.bool_)
    for place in range(digits):
        digit = bits >> np.uint64(4 * place) & np.uint64(15)
        wrong |= digit > 9
        number += digit.astype(np.float64) * 10.0**place
    number[wrong] = np.nan
    return number


def narrow(matches: Sequence[Match], window: Window, before: Shown, reading: Shown, *, drift: float = 0.0) -> list[Match]:
    """Those of ``matches`` that give ``reading`` in a window read anew; what did not move with the display goes down."""
    slack = max(_slack(reading), drift * abs(reading.value))
    moved = abs(reading.value - before.value) > _slack(before)
    kept = []
    for match in matches:
        if not window.known[match.table][match.number : match.number + match.form.words].all():
            continue
        raw = quietly(_raw_at, window, match)
        value = raw * 10.0**match.power
        if not abs(value - reading.value) <= slack:
            continue
        exact = abs(value - reading.value) <= _slack(reading)
        cost = match.cost + NEAR_COST * (not exact) + STILL_COST * (moved and raw == match.raw)
        kept.append(msgspec.structs.replace(match, raw=raw, cost=round(cost, 3), exact=exact))
    return sorted(kept, key=lambda match: match.cost)


def _raw_at(window: Window, match: Match) -> float:
    words = window.words[match.table][match.number : match.number + match.form.words]
    return float(_column(words, match.form)[0])


def tag_line(match: Match, name: str, unit: str = "") -> str:
    """A line for the ``tags`` of a device, ready to paste."""
    form = match.form
    keys = [f"name: {name}", f'at: "{match.at}"', f"kind: {form.kind}"]
    keys += ["word_order: little"] * (form.word_order == "little") + ["byte_order: little"] * (form.byte_order == "little")
    keys += ["encoding: bcd"] * form.bcd + [f"scale: {10.0**match.power:.10g}"] * (match.power != 0)
    keys += [f"unit: {unit}"] * bool(unit)
    return f"- {{{', '.join(keys)}}}"


def wider(match: Match, window: Window) -> Match | None:
    """The same number as an unsigned value of two registers, where the register beside it is 0: a counter would overflow there."""
    if match.form.kind is not Kind.UINT16 or match.form.bcd or match.form.byte_order == "little" or match.number == 0:
        return None
    beside = match.number - 1
    if not window.known[match.table][beside] or window.words[match.table][beside]:
        return None
    return msgspec.structs.replace(match, number=beside, form=Form(Kind.UINT32, 2))


def places(matches: Iterable[Match]) -> dict[Table, list[tuple[int, int]]]:
    """First register and count of every place that ``matches`` name, sorted, by table."""
    found: dict[Table, set[tuple[int, int]]] = {}
    for match in matches:
        found.setdefault(match.table, set()).add((match.number, match.form.words))
    return {table: sorted(spans) for table, spans in found.items()}
