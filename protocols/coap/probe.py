"""Ask the network whether a configuration is true, and what devices say they have (``/.well-known/core``, RFC 6690).

Separate acts, on sockets of their own. A probe asks each resource of each device once; a browse asks a device for its list, and each
resource in it for what it holds, so that a person sees values, not paths.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final
from urllib.parse import unquote

from protocols.clock import SystemClock
from protocols.coap.channel import Channel
from protocols.coap.linkformat import MAX_BYTES, Link, links_of
from protocols.coap.message import GET, Message, Option, Options, ordered, said, uint
from protocols.coap.plan import WELL_KNOWN, DevicePlan, ResourcePlan, place
from protocols.coap.wire import Missed
from protocols.contract import DriverError, Misfit, Offer, ProbeReport, Unreachable
from protocols.model import SEVERITY_MASK, Kind, Quality
from protocols.payload import COAP_FORMAT_OF, Format, format_of_coap

MAX_ASKED: Final = 50
"""Resources of one device that are asked one by one."""
SHOWN: Final = 60
AT_ONCE: Final = 20
"""Devices that are asked at the same time."""
LINK_FORMAT: Final = 40


async def probe(devices: Sequence[DevicePlan], channels: Sequence[Channel]) -> ProbeReport:
    """What each device says."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(device: DevicePlan, channel: Channel) -> tuple[bool, list[str]]:
        async with gate:
            return await _device(device, channel)

    told = await asyncio.gather(*(one(*each) for each in zip(devices, channels, strict=True)))
    return ProbeReport(ok=all(ok for ok, _ in told), findings=tuple(text for _, said_ in told for text in said_))


async def _device(device: DevicePlan, channel: Channel) -> tuple[bool, list[str]]:
    name, where = device.device.name, device.options.where
    if not device.resources:
        return True, [f"{name}: {where} has no resources, so nothing was asked"]
    said_, ok = [f"{name}: {device.options.scheme} at {where}"], True
    for resource in device.resources[:MAX_ASKED]:
        path = resource.options.path
        began = SystemClock.monotonic()
        try:
            response = await channel.fetch(resource.request, resource.options.max_bytes)
        except (Missed, DriverError) as error:
            return False, [*said_, f"{name}: {path}: {error}"]
        took = f"{(SystemClock.monotonic() - began) * 1000:.1f} ms"
        good, text = _judged(resource, response)
        ok = ok and good
        said_.append(f"{name}: {path}: {text} in {took}")
    if len(device.resources) > MAX_ASKED:
        said_.append(f"{name}: only the first {MAX_ASKED} of {len(device.resources)} resources were asked")
    return ok, said_


def _judged(resource: ResourcePlan, response: Message) -> tuple[bool, str]:
    if not response.is_success:
        return False, f"{said(response.code)}: check path, query and accept"
    form = format_of_coap(response.uint(Option.CONTENT_FORMAT, 2) or 0)
    batches = resource.read_back.decode(response.payload, SystemClock.time_ns(), format=form)
    tags = resource.options.tags
    bad = [
        batch.device.tags[slot].name
        for batch in batches
        for slot, quality in zip(batch.tag.tolist(), batch.quality.tolist(), strict=True)
        if quality & SEVERITY_MASK >= Quality.BAD
    ]
    if resource.read_back.trouble:
        return False, resource.read_back.trouble
    if bad:
        return False, f"{len(tags) - len(bad)} of {len(tags)} tags have a value, not so {', '.join(bad[:5])}: check at and kind"
    return True, f"{len(tags)} tags have a value"


# ------------------------------------------------------------------------------------------------------------- browsing


async def browse(devices: Sequence[DevicePlan], channels: Sequence[Channel], start: str, limit: int) -> AsyncIterator[Offer]:
    """Resources of each device as it lists them. ``start`` is ``device`` or ``device/path``; empty is all. Raises Misfit, Unreachable."""
    wanted, _, below = start.partition("/")
    chosen = [each for each in zip(devices, channels, strict=True) if not wanted or each[0].device.name == wanted]
    if not chosen:
        names = ", ".join(device.device.name for device in devices[:10])
        raise Misfit(f"no device {wanted} on this connection: begin with one of {names}")
    left = limit
    for device, channel in chosen:
        async for offer in _offers(device, channel, f"/{below}" if below else "", left):
            yield offer
            left -= 1


async def _offers(device: DevicePlan, channel: Channel, below: str, limit: int) -> AsyncIterator[Offer]:
    if limit <= 0:
        return
    try:
        response = await channel.fetch(Message(code=GET, options=place(WELL_KNOWN)), MAX_BYTES)
        if not response.is_success:
            raise Misfit(f"{device.options.where}: has no list of resources ({said(response.code)} for {WELL_KNOWN}): see its manual")
        links = [link for link in links_of(response.payload) if link.path.startswith(below)]
        for link in links[:limit]:
            yield await _offer(device, channel, link)
    except Missed as miss:
        raise Unreachable(str(miss)) from miss


async def _offer(device: DevicePlan, channel: Channel, link: Link) -> Offer:
    """A link, and what it holds."""
    path, _, query = unquote(link.path).partition("?")
    forms = [form for number in link.formats if (form := format_of_coap(number))]
    value, kind = "", None
    if path != WELL_KNOWN and LINK_FORMAT not in link.formats:
        try:
            request = Message(code=GET, options=_options(path, query, forms))
            response = await channel.fetch(request, MAX_BYTES)
        except Missed as miss:
            value = f"({miss.reason})"
        else:
            value, kind = _shown(response)
    words = [link.attributes[name] for name in ("title", "rt", "if") if link.attributes.get(name)]
    words += [str(form) for form in forms] + (["observable"] if link.is_observable else [])
    return Offer(
        path=f"{device.device.name}{link.path}",
        at=link.path,
        kind=kind,
        value=value,
        description=", ".join(words)[:500],
    )


def _options(path: str, query: str, forms: Sequence[Format]) -> Options:
    wish = ((int(Option.ACCEPT), uint(COAP_FORMAT_OF[forms[0]])),) if forms else ()
    return ordered(*place(path, tuple(query.split("&")) if query else ()), *wish)


def _shown(response: Message) -> tuple[str, Kind | None]:
    """What a resource holds, for a person; its kind where it is one text."""
    if not response.is_success:
        return f"({said(response.code)})", None
    form = format_of_coap(response.uint(Option.CONTENT_FORMAT, 2) or 0)
    if form in (Format.CBOR, Format.SENML_CBOR, Format.RAW):
        return f"0x{response.payload[: SHOWN // 2].hex()}", None
    text = response.payload[: SHOWN * 4].decode("utf-8", "replace")[:SHOWN]
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    if form is not Format.TEXT:
        return shown, None
    try:
        float(shown)
    except ValueError:
        return shown, Kind.STRING
    return shown, Kind.FLOAT64
