"""SunSpec: finds a device's models by walking them, and makes tags of their points.

A device has "SunS" at one of three addresses, then models one after another: id, length, contents; id 0xFFFF ends them
(SunSpec Device Information Model Specification 1.1, 6). What a model holds is published; ``data/sunspec/models.yaml`` is
made from the models in pysunspec2 by ``tools/sunspec.py``.

Pure: the walk is a generator that yields what it wants to read, (address, count), and is sent the registers, or None
where the device refuses.

A point's scale factor is a register too. It is read once, by the walk, and written as the tag's ``scale``; the scale
factor itself becomes a tag as well, so that a device which changes it is seen to do so. Points that read as "not
implemented" are left out, and told; what is there by day and says so by night is read as bad then (``invalid``).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import msgspec

from protocols.templates.library import OWN, read
from protocols.templates.shape import Row, Struct

BASES: Final = (40000, 50000, 0)
SUNS: Final = [0x5375, 0x6E53]
END: Final = 0xFFFF
MAX_MODELS: Final = 100
MAX_INSTANCES: Final = 100
"""Of one repeating group; a device that claims more is wrong."""
MAX_READ: Final = 100
"""Registers in one request: all devices give as many."""
SLOW_S: Final = 300.0

Walk = Generator[tuple[int, int], list[int] | None, "Found"]
Reads = Generator[tuple[int, int], list[int] | None, list[int] | None]

KINDS: Final[dict[str, str]] = {
    "int16": "int16", "uint16": "uint16", "acc16": "uint16", "enum16": "uint16", "bitfield16": "uint16", "count": "uint16",
    "raw16": "uint16", "sunssf": "int16", "int32": "int32", "uint32": "uint32", "acc32": "uint32", "enum32": "uint32",
    "bitfield32": "uint32", "ipaddr": "uint32", "int64": "int64", "uint64": "uint64", "acc64": "uint64", "bitfield64": "uint64",
    "float32": "float32", "float64": "float64", "string": "string",
}  # fmt: skip
"""By SunSpec's type; others (pad, addresses of networks) make no tag."""
ABSENT: Final[dict[str, int]] = {
    "int16": -(2**15), "sunssf": -(2**15), "int32": -(2**31), "int64": -(2**63), "ipaddr": 0,
    "uint16": 2**16 - 1, "enum16": 2**16 - 1, "bitfield16": 2**16 - 1, "count": 2**16 - 1, "raw16": 2**16 - 1,
    "uint32": 2**32 - 1, "enum32": 2**32 - 1, "bitfield32": 2**32 - 1, "uint64": 2**64 - 1, "bitfield64": 2**64 - 1,
}  # fmt: skip
"""The number that a type has for "not implemented", or "not now" (Information Model Specification 1.1, 4.2).

Not there: accumulators, as 0 is "not accumulated" and the beginning of every counter; floats, which have NaN; strings.
"""


class SunSpecError(Exception):
    """The device has no SunSpec map, or a broken one. The text says what and where."""


class Point(msgspec.Struct, frozen=True, array_like=True):
    """One value of a model; ``offset`` counts from where its group begins."""

    name: str
    offset: int
    type: str
    size: int
    scale: str = ""
    """A point of the model that holds the exponent of ten, or a number that is it."""
    unit: str = ""
    is_static: bool = False


class Group(Struct, frozen=True, kw_only=True):
    """A group that a model has several times, one after another, to its end."""

    name: str
    offset: int
    length: int
    points: tuple[Point, ...]


class Model(Struct, frozen=True, kw_only=True):
    """What SunSpec publishes about one model."""

    name: str
    label: str
    points: tuple[Point, ...]
    repeats: Group | None = None


@dataclass(slots=True)
class Found:
    """What a walk found."""

    tags: list[Row] = field(default_factory=list)
    models: list[tuple[int, int, int]] = field(default_factory=list)
    """Id, address of its contents' beginning (the id's register), length."""
    left_out: list[str] = field(default_factory=list)
    """Tags of points that this device does not implement."""


@cache
def models() -> Mapping[int, Model]:
    """The published models that are known here."""
    return {int(key): one for key, one in read(OWN.parent / "sunspec-models.yaml", dict[str, Model]).items()}


def walk(wanted: tuple[int, ...] = ()) -> Walk:
    """Finds the models of a device and makes tags of those that are ``wanted`` (empty: of all that are known).

    Raises SunSpecError.
    """
    address = yield from _base()
    found, seen = Found(), dict[str, int]()
    for _ in range(MAX_MODELS):
        header = yield address, 2
        if header is None or header[0] == END:
            return found  # some devices end without the end mark, where nothing more can be read
        model_id, length = header
        found.models.append((model_id, address, length))
        model = models().get(model_id)
        if model is not None and (not wanted or model_id in wanted):
            contents = yield from _contents(address, length + 2)
            if contents is None:
                raise SunSpecError(f"model {model_id} at {address} cannot be read in whole ({length} registers): check the device")
            seen[model.name] = seen.get(model.name, 0) + 1
            prefix = model.name if seen[model.name] == 1 else f"{model.name}-{seen[model.name]}"
            _place(model, prefix, address, contents, found)
        address += length + 2
        if address > END:
            raise SunSpecError(f"model {model_id} is {length} registers long and reaches beyond the last address: this is no SunSpec map")
    raise SunSpecError(f"more than {MAX_MODELS} models: this is no SunSpec map")


def _base() -> Generator[tuple[int, int], list[int] | None, int]:
    for base in BASES:
        registers = yield base, 2
        if registers == SUNS:
            return base + 2
    places = ", ".join(map(str, BASES))
    raise SunSpecError(f'no "SunS" at the holding registers {places}: this is no SunSpec device, or its SunSpec map is switched off')


def _contents(address: int, count: int) -> Reads:
    registers: list[int] = []
    while len(registers) < count:
        part = yield address + len(registers), min(MAX_READ, count - len(registers))
        if not part:
            return None
        registers += part
    return registers


def _place(model: Model, prefix: str, address: int, registers: list[int], found: Found) -> None:
    scales = _scales(model.points, 0, registers)
    for point in model.points:
        _point(point, f"{prefix}/{point.name}", address, 0, registers, scales, found)
    group = model.repeats
    if group is None:
        return
    for at in range(min(MAX_INSTANCES, (len(registers) - group.offset) // group.length)):
        base = group.offset + at * group.length
        own = scales | _scales(group.points, base, registers)
        for point in group.points:
            _point(point, f"{prefix}/{group.name}/{at + 1}/{point.name}", address, base, registers, own, found)


def _scales(points: tuple[Point, ...], base: int, registers: list[int]) -> dict[str, int]:
    """Exponents by the name of their point; those that are not implemented are missing."""
    found = {}
    for point in points:
        if point.type == "sunssf" and base + point.offset < len(registers):
            raw = registers[base + point.offset]
            exponent = raw - 0x10000 if raw & 0x8000 else raw
            if -10 <= exponent <= 10:
                found[point.name] = exponent
    return found


def _point(point: Point, name: str, address: int, base: int, registers: list[int], scales: Mapping[str, int], found: Found) -> None:
    start = base + point.offset
    raw = registers[start : start + point.size]
    if point.type not in KINDS or len(raw) < point.size:
        return
    if _absent(point, raw) or (point.scale and not point.scale.lstrip("-").isdigit() and point.scale not in scales):
        found.left_out.append(name)
        return
    tag: Row = {"name": name, "at": f"holding:{address + start}", "kind": KINDS[point.type]}
    if point.type == "string":
        tag["length"] = 2 * point.size
    if point.type in ABSENT:
        tag["invalid"] = [ABSENT[point.type]]
    if point.scale:
        exponent = scales[point.scale] if point.scale in scales else int(point.scale)
        if exponent:
            tag["scale"] = float(f"1e{exponent}")
    if point.unit:
        tag["unit"] = point.unit
    if point.is_static or point.type == "string":
        tag["scan_s"] = SLOW_S
    found.tags.append(tag)


def _absent(point: Point, raw: list[int]) -> bool:
    if point.type == "string":
        return not any(raw) or raw[0] == 0x8000
    number = 0
    for register in raw:
        number = number << 16 | register
    if point.type in ("float32", "float64"):  # NaN: all bits of the exponent, and some of the mantissa
        exponent, mantissa = (8, 23) if point.size == 2 else (11, 52)
        return number >> mantissa & (1 << exponent) - 1 == (1 << exponent) - 1 and number & (1 << mantissa) - 1 != 0
    return point.type in ABSENT and number == ABSENT[point.type] % (1 << 16 * point.size)
