"""What a client's document means, computed once: devices, and for each request its address, headers, decoder and slots. Pure.

A plan lives as long as the options object it was made from; a session keeps nothing in it but what the peer said about a
request's freshness (its validators), which is good for the next session too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

import numpy as np
from yarl import URL

from protocols.http import config
from protocols.http.config import Http
from protocols.http.decoding import Beside
from protocols.model import Batch, Device
from protocols.payload import Decoder


@dataclass(slots=True)
class Kept:
    """The last good answer of a request, for the server that says it has not changed."""

    etag: str
    last_modified: str
    batches: list[Batch]
    time_ns: int
    """When it came."""

    def anew(self, now_ns: int) -> list[Batch]:
        """The values, as they stand now. A time of the device's own stays as it is: it did not change either."""
        return [
            Batch(
                device=batch.device,
                tag=batch.tag,
                value=batch.value,
                quality=batch.quality,
                time_ns=np.where(batch.time_ns == self.time_ns, np.int64(now_ns), batch.time_ns),
            )
            for batch in self.batches
        ]


@dataclass(eq=False, slots=True)
class RequestPlan:
    """One request of a device."""

    where: str
    """For a person: ``GET /api/values``."""
    options: config.Request
    url: URL
    headers: dict[str, str]
    body: bytes | None
    slots: tuple[int, ...]
    decoder: Decoder
    beside: Beside
    """The same decoder, for bodies of any length."""
    period_s: float
    kept: Kept | None = None


@dataclass(eq=False, slots=True)
class DevicePlan:
    """One device."""

    options: config.Device
    device: Device
    tags: tuple[config.Tag, ...]
    """``tags[slot]`` is what ``device.tags[slot]`` came from."""
    requests: list[RequestPlan] = field(default_factory=list)

    def find(self, tag: str) -> int | None:
        """The slot of a tag by name."""
        return next((slot for slot, each in enumerate(self.tags) if each.name == tag), None)

    def reader(self, slot: int) -> RequestPlan:
        """The request whose answer carries a slot."""
        return next(request for request in self.requests if slot in request.slots)


@dataclass(eq=False, slots=True)
class Plan:
    """A connection."""

    base: URL
    where: str
    """Host and port, as errors name them."""
    devices: list[DevicePlan]


def make_plan(options: Http) -> Plan:
    base = URL(options.url.rstrip("/"))
    devices = [_device(options, device, base) for device in options.devices]
    return Plan(base=base, where=f"{base.host}:{base.port}", devices=devices)


def _device(options: Http, device: config.Device, base: URL) -> DevicePlan:
    tags = tuple(tag for request in device.requests for tag in request.tags)
    periods = [request.scan_s or device.scan_s for request in device.requests for _ in request.tags]
    whole = Device(options.name, device.name, tuple(tag.tag(period) for tag, period in zip(tags, periods, strict=True)))
    plan = DevicePlan(device, whole, tags)
    first = 0
    for request in device.requests:
        slots = tuple(range(first, first + len(request.tags)))
        first += len(request.tags)
        decoder = Decoder(whole, tags, request, slots=slots)
        plan.requests.append(
            RequestPlan(
                where=f"{request.method} {request.path}",
                options=request,
                url=address(base, request.path, request.query.items()),
                headers=headers(device, request),
                body=request.body.encode() if request.method == "POST" else None,
                slots=slots,
                decoder=decoder,
                beside=Beside(decoder),
                period_s=request.scan_s or device.scan_s,
            )
        )
    return plan


def headers(device: config.Device, request: config.Request) -> dict[str, str]:
    """What goes with a request: its own headers win over the device's."""
    merged = {name.lower(): (name, value) for name, value in (*device.headers.items(), *request.headers.items())}
    if request.method == "POST" and request.body:
        merged.setdefault("content-type", ("Content-Type", request.body_type))
    return dict(merged.values())


def address(base: URL, path: str, query: Iterable[tuple[str, str]] = ()) -> URL:
    """The address at which ``path`` (percent-encoded as written) lies, with ``query`` behind it."""
    asked = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query)
    sign = "&" if "?" in path else "?"
    return URL(f"{str(base).rstrip('/')}{path}{sign + asked if asked else ''}", encoded=True)
