"""What a DCMD asks for: each metric as a value for a tag, or the reason why it is none. Pure.

A metric is named by its name or by the alias that the birth gave it; its datatype, where it has one, has to be the birth's. A number
that does not fit is refused and never cut: 70000 in the field of an UInt16 is not 4464. (Sparkplug 3.0, 6.4.6, 6.4.8.4, 6.4.24.)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from protocols.model import Kind
from protocols.sparkplug.kinds import DATATYPE_OF, SIGNED_BITS, UNSIGNED_BITS, Datatype
from protocols.sparkplug.metric import Value
from protocols.sparkplug.payload import Metric, Payload, value_of

_NAMES: Final = {int(each): each.name.title().replace("Uint", "UInt") for each in Datatype}


@dataclass(frozen=True, slots=True)
class Wish:
    """One metric of a command. ``why`` says why it cannot be; empty if it can, and then ``value`` fits the tag's kind."""

    name: str
    value: Value | None
    stamp_ms: int | None
    """When it was published, by its own word: the metric's stamp, or the payload's."""
    why: str = ""


def wishes(payload: Payload, tags: Mapping[str, Kind], name_of: Callable[[int], str | None]) -> list[Wish]:
    """What ``payload`` asks of a device with ``tags``. ``name_of`` knows the aliases of its birth."""
    return [_wish(metric, payload, tags, name_of) for metric in payload.metrics]


def _wish(metric: Metric, payload: Payload, tags: Mapping[str, Kind], name_of: Callable[[int], str | None]) -> Wish:
    stamp_ms = payload.timestamp_ms if metric.timestamp_ms is None else min(metric.timestamp_ms, payload.timestamp_ms or 0)
    told = name_of(metric.alias) if metric.alias is not None else None
    name = metric.name or told or (f"alias {metric.alias}" if metric.alias is not None else "")
    why = _misnamed(metric, told, name, tags)
    if why:
        return Wish(name, metric.value, stamp_ms, why)
    value, why = _valued(metric, tags[name])
    return Wish(name, value, stamp_ms, why)


def _misnamed(metric: Metric, told: str | None, name: str, tags: Mapping[str, Kind]) -> str:
    if metric.alias is not None and told is None and not metric.name:
        return f"alias {metric.alias} is in no birth of this device"
    if metric.name and told is not None and told != metric.name:
        return f"name {metric.name[:80]} and alias {metric.alias} are two metrics"
    if name not in tags:
        return f"the device has no metric {name[:80]}"
    return "a command is not historical" if metric.is_historical else ""


def _valued(metric: Metric, kind: Kind) -> tuple[Value | None, str]:
    wanted = DATATYPE_OF[kind]
    if metric.datatype is not None and metric.datatype != wanted:
        return metric.value, f"datatype {_NAMES.get(metric.datatype, metric.datatype)} is not the birth's, {_NAMES[wanted]}"
    if metric.is_null or metric.value is None:
        return None, "a command has a value, and this one has none"
    value = value_of(metric.value, wanted)
    if not _fits(metric.value, value, kind):
        return metric.value, f"the value is not {_NAMES[wanted]}, or out of its range"
    return value, ""


def _fits(raw: Value, value: Value | None, kind: Kind) -> bool:
    wanted = DATATYPE_OF[kind]
    bits = SIGNED_BITS.get(wanted) or UNSIGNED_BITS.get(wanted)
    if bits is not None:
        if isinstance(raw, bool) or not isinstance(raw, int) or not isinstance(value, int):
            return False
        return raw in {value & (1 << wide) - 1 for wide in (bits, 32, 64) if wide >= bits}
    if kind is Kind.FLOAT32:
        return isinstance(value, float) and (value != value or _is_float32(value))
    form = {Kind.BOOL: bool, Kind.STRING: str, Kind.BYTES: bytes}.get(kind, float)
    return isinstance(raw, form)


def _is_float32(value: float) -> bool:
    try:
        struct.pack("<f", value)
    except OverflowError:
        return False
    return True
