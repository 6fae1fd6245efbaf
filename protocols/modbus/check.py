"""Everything that is wrong with a Modbus connection beyond what types and limits can say: all of it, with path and advice.

Pure. Errors are what cannot be right; warnings are what a field engineer would ask about: two tags on the same register,
a line that is nearly too slow, a setting that has no effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from protocols.contract import Problem
from protocols.modbus import config
from protocols.modbus.address import LAST_ADDRESS, Address, Impossible, Table, parse, width
from protocols.modbus.config import AnyConnection, ModbusRtu, ModbusRtuTcp
from protocols.modbus.plan import make_plan
from protocols.modbus.wire import Wire, whole_numbers, wire_of
from protocols.model import Kind
from protocols.options import TEXT, error, tag_problems, unique_names, warning
from protocols.values import said

BUSY: Final = 0.8
"""A line that is in use for more than this share of the time is warned about."""
MAX_OVERLAPS: Final = 8
"""Earlier tags that one tag is compared with: a broken document must not take for ever to check."""
BCD_KINDS: Final = (Kind.UINT8, Kind.UINT16, Kind.UINT32, Kind.UINT64)
FLOATS: Final = (Kind.FLOAT32, Kind.FLOAT64)
RTU_UNITS: Final = range(1, 248)


def check(options: AnyConnection) -> list[Problem]:
    """All problems of ``options``; paths are relative to it."""
    problems = list(_unique(options))
    is_rtu = isinstance(options, ModbusRtu | ModbusRtuTcp)
    for at, device in enumerate(options.devices):
        problems.extend(_device(device, f"devices[{at}]", is_rtu=is_rtu))
    if isinstance(options, ModbusRtu):
        problems.extend(_serial(options))
    if not any(problem.severity == "error" for problem in problems):
        problems.extend(_load(options))
    return problems


def _unique(options: AnyConnection) -> Iterator[Problem]:
    yield from unique_names(options.devices, "devices", "device")
    units: dict[int, int] = {}
    for at, device in enumerate(options.devices):
        if units.setdefault(device.unit_id, at) != at:
            yield warning(
                f"devices[{at}].unit_id",
                f"devices[{units[device.unit_id]}] has unit id {device.unit_id} too",
                "right only if both mean the same device; else correct one",
            )


def _serial(options: ModbusRtu) -> Iterator[Problem]:
    if options.data_bits != 8:
        yield error("data_bits", "RTU needs 8 data bits", "write data_bits: 8 (7 belongs to Modbus ASCII)")
    if options.parity == "none" and options.stop_bits == 1:
        yield warning(
            "stop_bits", "the standard wants 2 stop bits where there is no parity", "see the device's manual; most work with 1 as well"
        )


def _device(device: config.Device, path: str, *, is_rtu: bool) -> Iterator[Problem]:
    if is_rtu and device.unit_id not in RTU_UNITS:
        advice = "write the address that is set at the device, 1 to 247"
        yield error(f"{path}.unit_id", f"unit id {device.unit_id} cannot be asked over RTU: 0 is for all, 248 to 255 are reserved", advice)
    yield from unique_names(device.tags, f"{path}.tags", "tag of a device")
    wires: list[Wire] = []
    for at, tag in enumerate(device.tags):
        where = f"{path}.tags[{at}]"
        found = list(_tag(tag, device, where))
        yield from found
        if not any(problem.severity == "error" for problem in found):
            wires.append(wire_of(at, tag, device))
    yield from _overlaps(wires, device, path)


def _tag(tag: config.Tag, device: config.Device, path: str) -> Iterator[Problem]:
    try:
        place = parse(tag.at, device.address_base)
    except Impossible as reason:
        yield error(f"{path}.at", str(reason), reason.advice)
        return
    yield from _kind(tag, place, path)
    yield from _size(tag, place, device, path)
    yield from _invalid(tag, path)
    if tag.writable and not place.table.is_writable:
        advice = "take writable away, or write coil: or holding: if the device has it there too"
        yield error(f"{path}.writable", f"a {place.table} cannot be written", advice)
    yield from tag_problems(tag, path)


def _kind(tag: config.Tag, place: Address, path: str) -> Iterator[Problem]:
    if place.table.is_bits and tag.kind is not Kind.BOOL:
        yield error(f"{path}.kind", f"a {place.table} is one bit, not {tag.kind}", "write kind: bool, or another table in at")
    if place.bit is not None and tag.kind is not Kind.BOOL:
        yield error(f"{path}.kind", f"{tag.at} is one bit, not {tag.kind}", "write kind: bool, or at without the bit")
    if tag.encoding == "bcd" and tag.kind not in BCD_KINDS:
        yield error(f"{path}.encoding", f"bcd makes no {tag.kind}", f"bcd goes with {', '.join(BCD_KINDS)}")
    if tag.kind in TEXT and tag.length == 0:
        yield error(f"{path}.length", f"a {tag.kind} needs a length", "write length: the number of bytes, two for each register")
    if tag.kind not in TEXT and tag.length:
        yield error(f"{path}.length", f"a {tag.kind} has no length of its own", "take length away, or write kind: string or bytes")


def _invalid(tag: config.Tag, path: str) -> Iterator[Problem]:
    """Whether each of ``tag.invalid`` is a number that the tag can hold: -32768 for an int16, not its pattern 0x8000."""
    if not tag.invalid:
        return
    if tag.kind in (*TEXT, Kind.BOOL):
        yield error(f"{path}.invalid", f"a {tag.kind} has no number that means no value", "take invalid away")
        return
    low, high = whole_numbers(tag.kind, bcd=tag.encoding == "bcd")
    for number in tag.invalid:
        if not low <= number <= high:
            advice = "write the number before scaling, as this kind holds it"
            other = number - (high - low + 1) if number > high else number + (high - low + 1)
            if tag.kind in FLOATS:
                advice = "write the number that a float holds, such as -999, not its bits; NaN needs no entry, it is read as NaN"
            elif low <= other <= high and tag.encoding != "bcd":
                advice = f"these bits are {other} in this kind: write that"
            yield error(f"{path}.invalid", f"{said(number)} is not among the numbers {low} to {high} of this {tag.kind}", advice)


def _size(tag: config.Tag, place: Address, device: config.Device, path: str) -> Iterator[Problem]:
    count = width(tag.kind, place.table, tag.length)
    if place.number + count - 1 > LAST_ADDRESS:
        yield error(f"{path}.at", f"{tag.at} and {count - 1} registers after it do not exist", f"the last address is {LAST_ADDRESS}")
    if not place.table.is_bits and count > device.max_registers:
        message = f"it takes {count} registers, and the device gives {device.max_registers} at once"
        yield error(
            f"{path}.length" if tag.kind in TEXT else f"{path}.kind", message, "raise max_registers if the device can, or split the tag"
        )


def _overlaps(wires: list[Wire], device: config.Device, path: str) -> Iterator[Problem]:
    """Two tags on the same registers. Bits, and the register that holds them, may share one."""
    for table in Table:
        open_wires: list[Wire] = []
        for wire in sorted((one for one in wires if one.table is table), key=lambda one: (one.number, -one.count, one.slot)):
            open_wires = [other for other in open_wires if other.end > wire.number]
            for other in open_wires[-MAX_OVERLAPS:]:
                if problem := _overlap(other, wire, device, path):
                    yield problem
            open_wires.append(wire)


def _overlap(first: Wire, second: Wire, device: config.Device, path: str) -> Problem | None:
    a, b = device.tags[first.slot], device.tags[second.slot]
    where = f"{path}.tags[{second.slot}].at"
    both = f"{a.name!r} ({first.table}:{first.number}, {a.kind}) and {b.name!r} ({second.table}:{second.number}, {b.kind})"
    same_place = (first.number, first.count, first.bit) == (second.number, second.count, second.bit)
    if same_place and first.raw is second.raw:
        if first.order != second.order or first.bcd != second.bcd:  # halves of a register, or two readings on purpose
            return None if len(first.order) == 1 else warning(where, f"{both} read the same registers in two ways", "keep the right one")
        return warning(where, f"{both} are the same value", "keep one, or correct the address")
    if Kind.BOOL in (first.raw, second.raw):
        return None
    if second.end > first.end and first.raw not in TEXT and second.raw not in TEXT:
        return error(where, f"{both} overlap in part", "no device keeps two numbers so: correct an address or a kind")
    return warning(where, f"{both} overlap", "right only if one is a part, or another reading, of the other; else correct an address")


def _load(options: AnyConnection) -> Iterator[Problem]:
    """Whether the line can carry the scans that are asked for, and which device takes how much of it."""
    loads = [plan.load() for plan in make_plan(options).devices] if is_paced(options) else []
    total = sum(loads)
    if total <= BUSY:
        return
    worst = max(range(len(loads)), key=loads.__getitem__)
    message = f"the scans take {total:.0%} of the line's time, {loads[worst]:.0%} of it {options.devices[worst].name}"
    advice = "scan slower (scan_s), spread the devices over more lines, or raise baud_rate"
    if total > 1:
        yield error("devices", f"{message}: it can never keep up", advice)
    else:
        yield warning("devices", f"{message}: little is left for commands and repeats", advice)


def is_paced(options: AnyConnection) -> bool:
    """Whether the time that a scan takes is known without asking the network."""
    return isinstance(options, ModbusRtu) or options.request_delay_s > 0 or any(device.request_delay_s for device in options.devices)
