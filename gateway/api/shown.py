"""How the gateway's own things look outside: from statuses, ledgers and columns to the shapes of the API. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

import msgspec
import numpy as np

from gateway import journal, links, readable
from gateway.connections import Connection
from gateway.counters import Counters
from gateway.identity.sight import Sight
from gateway.journal import Lane
from gateway.verification import Check
from holdfast.shapes import connections as shapes
from holdfast.shapes.devices import Device, Tag
from holdfast.shapes.journal import JournalEntry, LaneAccount, UplinkAccount, Verification
from holdfast.shapes.values import Reading
from protocols import model
from protocols.contract import Loaded
from protocols.model import LATENESS_BUCKETS_S, Batch, Quality, ScanStats
from protocols.secret import FromCredential, FromEnv, FromFile

_BAD: Final = 0x80000000
_SENSITIVE: Final = re.compile("(?i)password|passphrase|secret|token|credential|authorization|cookie|api.?key|^key$")
_USERINFO: Final = re.compile(r"(?<=://)[^/@\s]*@")
_NAMES: Final = {each.value: each.name.lower().replace("_", "-") for each in Quality}
HIDDEN: Final = "(hidden)"
NOT_ALL_YOURS: Final = "it is not up; ask whoever runs the whole gateway"


def connection(one: Connection, sight: Sight) -> shapes.Connection:
    """``one`` as ``sight`` may know it: what went wrong may name a device, so it is told to whoever sees all of them."""
    seen = [device for device in one.devices if sight.sees(device.name)]
    status = one.status
    session: object = one.session
    whole = len(seen) == len(one.devices)
    return shapes.Connection(
        name=status.name,
        type=one.driver.name,
        state=status.state.value,
        since_ns=status.since_ns,
        trouble=status.trouble if whole or not status.trouble else NOT_ALL_YOURS,
        sessions=status.sessions,
        devices=len(seen),
        tags=sum(len(device.tags) for device in seen),
        counters=counts(status.counters),
        scans=punctuality(one.stats, session.load if isinstance(session, Loaded) else None),
    )


def counts(counters: Counters) -> shapes.Counts:
    return shapes.Counts(
        taken=counters.taken,
        given=counters.given,
        errors=dict(counters.errors),
        dropped=dict(counters.dropped),
        oldest_ns=counters.oldest_ns,
    )


def punctuality(stats: ScanStats, bus_share: float | None) -> shapes.Punctuality:
    bounds: Iterable[tuple[float | None, int | None]] = zip_longest(LATENESS_BUCKETS_S, stats.late_s)
    return shapes.Punctuality(
        scans=stats.scans,
        missed=stats.missed,
        late_mean_s=stats.late_sum_s / stats.scans if stats.scans else 0.0,
        lateness=[shapes.Lateness(up_to_s=bound, scans=scans or 0) for bound, scans in bounds],
        requests=stats.requests,
        errors=dict(stats.errors),
        bus_share=bus_share,
    )


def options(struct: msgspec.Struct) -> dict[str, Any]:  # Any: JSON
    """A connection's own options without its devices. Where a secret lies is told, a secret never."""
    config = struct.__struct_config__
    tagged: dict[str, Any] = {str(config.tag_field): config.tag} if config.tag_field else {}  # Any: see below
    fields = {field.encode_name: getattr(struct, field.name) for field in msgspec.structs.fields(struct) if field.name != "devices"}
    return tagged | {key: _plain(key, value) for key, value in fields.items()}


def _plain(key: str, value: Any) -> Any:  # Any: whatever an option holds, and JSON
    if isinstance(value, FromFile | FromEnv | FromCredential):
        return msgspec.to_builtins(value)
    if _SENSITIVE.search(key) and isinstance(value, str):
        return HIDDEN if value else value
    if isinstance(value, msgspec.Struct):
        return options(value)
    if isinstance(value, Mapping):
        return {str(inner): _plain(str(inner), each) for inner, each in value.items()}
    if isinstance(value, str):
        return _USERINFO.sub(f"{HIDDEN}@", value)
    return [_plain(key, each) for each in value] if isinstance(value, list | tuple) else msgspec.to_builtins(value)


def device(one: model.Device, batches: Sequence[Batch], *, state: str, lost: bool) -> Device:
    bad = sum(int(np.count_nonzero(batch.quality & _BAD)) for batch in batches)
    seen = [int(batch.time_ns[fine].max()) for batch in batches if (fine := (batch.quality & _BAD) == 0).any()]
    return Device(
        name=one.name,
        connection=one.connection,
        state=state,
        lost=lost,
        last_seen_ns=max(seen, default=0),
        tags=len(one.tags),
        bad=bad,
    )


def tag(of: model.Device, one: model.Tag) -> Tag:
    return Tag(
        device=of.name,
        name=one.name,
        kind=one.kind.value,
        unit=one.unit,
        writable=one.writable,
        scan_s=one.scan_s,
        deadband=one.deadband,
        deadband_percent=one.deadband_percent,
        max_silence_s=one.max_silence_s,
    )


def readings(of: model.Device, batches: Sequence[Batch], wanted: Mapping[int, str]) -> Iterator[Reading]:
    """The readings of the slots in ``wanted`` (slot to tag name), in the order of ``wanted``."""
    rows = {slot: (column, row) for column, batch in enumerate(batches) for row, slot in enumerate(batch.tag.tolist()) if slot in wanted}
    plain = [(readable.values(batch), batch.quality.tolist(), batch.time_ns.tolist()) for batch in batches]
    for slot, name in wanted.items():
        column, row = rows[slot]
        values, qualities, times = plain[column]
        yield Reading(
            device=of.name,
            tag=name,
            value=values[row],
            unit=of.tags[slot].unit,
            quality=qualities[row],
            quality_name=quality_name(qualities[row]),
            time_ns=times[row],
        )


def quality_name(quality: int) -> str:
    """``good``, ``bad-timeout``; ``0x80b10000`` where Holdfast has no name for it."""
    return _NAMES.get(quality, f"0x{quality:08x}")


def lane_account(name: str, one: journal.LaneLedger) -> LaneAccount:
    explained = one.kept + one.unwritten + one.retired + sum(one.dropped.values()) + one.quarantined
    plain = {key: getattr(one, key) for key in one.__struct_fields__}
    return msgspec.convert(plain | {"lane": name, "unaccounted": one.appended - explained}, LaneAccount)


def uplink_account(uplink: str, lane: str, one: journal.ReaderLane, *, cursor: int, now_ns: int) -> UplinkAccount:
    explained = one.acknowledged + one.pending + sum(one.dropped.values()) + one.quarantined
    age_s = max(now_ns - one.oldest_pending_ns, 0) / 1e9 if one.oldest_pending_ns else 0.0
    plain = {key: getattr(one, key) for key in one.__struct_fields__}
    more = {"uplink": uplink, "lane": lane, "cursor": cursor, "oldest_pending_s": age_s, "unaccounted": one.appended - explained}
    return msgspec.convert(plain | more, UplinkAccount)


def entry(lane: Lane, one: journal.Record | journal.Lost) -> JournalEntry:
    said = readable.entry(one)
    if isinstance(one, journal.Lost):
        return msgspec.convert({**said, "lane": lane.value}, JournalEntry)
    return msgspec.convert(said, JournalEntry)


def verification(check: Check) -> Verification:
    report = {} if check.report is None else {key: getattr(check.report, key) for key in check.report.__struct_fields__}
    plain = {"state": check.state, "begun_ns": check.begun_ns, "ended_ns": check.ended_ns, "detail": check.detail}
    return msgspec.convert(plain | report, Verification)


def link(status: links.Status) -> dict[str, Any]:  # Any: fields of a shape
    """What uplinks and faces have in common."""
    return {
        "name": status.name,
        "state": status.state.value,
        "since_ns": status.since_ns,
        "trouble": status.trouble,
        "sessions": status.sessions,
        "counters": counts(status.counters),
    }
