"""SenML packs (RFC 8428), JSON and CBOR, resolved: base fields added, names whole, times absolute."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from protocols.payload.documents import read_cbor, read_json
from protocols.payload.trouble import Undecodable

MAX_RECORDS: Final = 10_000
RELATIVE: Final = 2**28
"""Times below it count from now (4.5.3)."""
VERSION: Final = 10
_FARTHEST_S: Final = 2**40
"""Seconds; a time beyond is none."""
LABELS: Final[dict[int, str]] = dict(
    enumerate(("bs", "bv", "bu", "bt", "bn", "bver", "n", "u", "v", "vs", "vb", "s", "t", "ut", "vd"), -6),
)
"""CBOR's numbers for the labels (table 4)."""
_NUMBERS: Final = ("bt", "bv", "bs", "v", "s", "t")
NAME_CHARACTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-:./_")
_LONGEST_NAME: Final = 1024


@dataclass(frozen=True, slots=True)
class Record:
    """One resolved record. ``value`` is None where it has a sum alone."""

    name: str
    unit: str
    value: bool | int | float | str | bytes | None
    sum: int | float | None
    time_ns: int


def resolve(pack: Any, now_ns: int, *, binary: bool) -> list[Record]:  # Any: JSON or CBOR
    """The records of ``pack`` in time order (stable). Raises Undecodable."""
    if not isinstance(pack, list) or not pack:
        raise Undecodable("the payload is no SenML pack: a pack is a list of records")
    if len(pack) > MAX_RECORDS:
        raise Undecodable(f"the payload has {len(pack)} records, more than the {MAX_RECORDS} that are read")
    records = list(_records(pack, now_ns, binary))
    records.sort(key=lambda record: record.time_ns)
    return records


def _records(pack: list[Any], now_ns: int, binary: bool) -> Iterator[Record]:  # Any: as above
    base: dict[str, Any] = {"bn": "", "bt": 0, "bu": "", "bv": 0, "bs": 0}  # Any: text or number
    has_base_sum = False
    for number, entry in enumerate(pack):
        record = _labelled(entry, number)
        for label in base:
            if label in record:
                base[label] = record[label]
        name = base["bn"] + record.get("n", "")
        if not name or len(name) > _LONGEST_NAME or not NAME_CHARACTERS.issuperset(name) or name[0] in "-:./_":
            raise Undecodable(f"record {number} has the name {name[:80]!r}, which SenML does not allow")
        value = _value(record, base, number, binary)
        has_base_sum = has_base_sum or "bs" in record
        total = record.get("s", 0) + base["bs"] if "s" in record or has_base_sum else None
        if value is None and "s" not in record:
            continue  # a record of base fields alone
        yield Record(name, record.get("u", base["bu"]), value, total, _time_ns(base["bt"], record.get("t", 0), now_ns))


def _labelled(entry: Any, number: int) -> dict[str, Any]:  # Any: as above
    if not isinstance(entry, dict):
        raise Undecodable(f"record {number} of the SenML pack is no map")
    record = {LABELS.get(key, "") if type(key) is int else key: value for key, value in entry.items()}
    for label, value in record.items():
        if isinstance(label, str) and label.endswith("_"):
            raise Undecodable(f"record {number} has the label {label[:80]!r}, which must be understood and is not")
        if label in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float) or not _fits(value)):
            raise Undecodable(f"record {number} has no number as {label}")
        if label in ("bn", "n", "bu", "u") and not isinstance(value, str):
            raise Undecodable(f"record {number} has no text as {label}")
    version = record.get("bver", VERSION)
    if not isinstance(version, int) or version > VERSION:
        raise Undecodable(f"record {number} is SenML of version {str(version)[:20]}; versions up to {VERSION} are read")
    return record


def _fits(value: int | float) -> bool:
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**64


def _value(record: dict[str, Any], base: dict[str, Any], number: int, binary: bool) -> Any:  # Any: as above; Record.value
    present = [label for label in ("v", "vs", "vb", "vd") if label in record]
    if len(present) > 1:
        raise Undecodable(f"record {number} has more than one value")
    if not present:
        return record["bv"] if "bv" in record and "s" not in record and "n" in record else None
    label = present[0]
    value = record[label]
    if label == "v":
        return value + base["bv"]
    if not isinstance(value, {"vs": str, "vb": bool, "vd": bytes if binary else str}[label]):
        raise Undecodable(f"record {number} has something else as {label} than that is")
    return _data(value) if label == "vd" and not binary else value


def _data(text: Any) -> bytes:  # Any: a str, as _value saw
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Undecodable("vd is no base64url") from None


def _time_ns(base: int | float, offset: int | float, now_ns: int) -> int:
    seconds = base + offset
    if not abs(seconds) < _FARTHEST_S:
        return 0
    nanoseconds = seconds * 1_000_000_000 if isinstance(seconds, int) else round(seconds * 1e6) * 1000  # a float has no more
    return nanoseconds if seconds >= RELATIVE else now_ns + nanoseconds


def read_senml_json(payload: bytes, now_ns: int) -> list[Record]:
    return resolve(read_json(payload), now_ns, binary=False)


def read_senml_cbor(payload: bytes, now_ns: int) -> list[Record]:
    return resolve(read_cbor(payload), now_ns, binary=True)
