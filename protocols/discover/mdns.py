"""What announces itself on the local network (multicast DNS, RFC 6762 and 6763), through the library zeroconf.

It listens on the networks that it is told, for as long as it is told, and asks for the kinds of service that plants have.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from protocols.clock import Clock
from protocols.contract import Candidate, Unreachable

KINDS: Final = {
    "_opcua-tcp._tcp.local.": "opcua",
    "_modbus._tcp.local.": "modbus-tcp",
    "_mbap._tcp.local.": "modbus-tcp",
    "_coap._udp.local.": "coap",
    "_mqtt._tcp.local.": "mqtt",
    "_secure-mqtt._tcp.local.": "mqtt",
    "_http._tcp.local.": "http",
    "_https._tcp.local.": "http",
    "_ocpp._tcp.local.": "",
    "_knx._udp.local.": "",
    "_device-info._tcp.local.": "",
}
"""Kinds of service, and the type of connection that leads to them; empty where we have none."""
MAX_FOUND: Final = 1000
MAX_SHOWN: Final = 200
RESOLVE_MS: Final = 2000


async def announced(clock: Clock, for_s: float, interfaces: Sequence[str] = ()) -> AsyncGenerator[Candidate, None]:
    """Services as they announce themselves, for ``for_s`` seconds. ``interfaces``: our addresses; empty for all networks.

    Raises Unreachable where nothing can be listened to.
    """
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue(MAX_FOUND)

    def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is ServiceStateChange.Added and not heard.full():
            heard.put_nowait((service_type, name))

    try:
        network = AsyncZeroconf(interfaces=list(interfaces), ip_version=IPVersion.V4Only) if interfaces else AsyncZeroconf()
    except OSError as error:
        raise Unreachable(f"mDNS: {error.strerror or error}: is there a network, and may this user listen on UDP port 5353?") from error
    browser = AsyncServiceBrowser(network.zeroconf, list(KINDS), handlers=[changed])
    end = clock.monotonic() + for_s
    try:
        while (left_s := end - clock.monotonic()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    kind, name = await heard.get()
            except TimeoutError:
                break
            yield await _candidate(network, kind, name)
    finally:
        await browser.async_cancel()
        await network.async_close()


async def _candidate(network: AsyncZeroconf, kind: str, name: str) -> Candidate:
    service = AsyncServiceInfo(kind, name)
    await service.async_request(network.zeroconf, RESOLVE_MS)
    addresses = service.parsed_addresses()
    host = addresses[0] if addresses else (service.server or "").rstrip(".")
    port = service.port or 0
    pairs = (f"{key}={value}" if value else str(key) for key, value in service.decoded_properties.items())
    detail = ", ".join((name.removesuffix("." + kind), *pairs))
    return Candidate(
        where=f"{kind.removesuffix('.local.')} at {host}:{port}",
        detail="".join(character if character.isprintable() else " " for character in detail)[:MAX_SHOWN],
        options=options_of(kind, host, port, dict(service.decoded_properties)),
    )


def options_of(kind: str, host: str, port: int, properties: dict[str, str | None]) -> dict[str, object]:
    """The connection that leads to a service of this kind, as far as an announcement tells; empty where we have none."""
    type_name = KINDS.get(kind, "")
    if not type_name or not host or not port:
        return {}
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if type_name == "opcua":  # Part 12, annex C: the path stands in the TXT record
        return {"type": type_name, "endpoint": f"opc.tcp://{authority}{properties.get('path') or ''}"}
    if type_name == "coap":
        return {"type": type_name, "devices": [{"name": f"coap-{host}".replace(":", "-"), "host": host, "port": port}]}
    if type_name == "http":
        return {"type": type_name, "url": f"{'https' if kind.startswith('_https') else 'http'}://{authority}"}
    return {"type": type_name, "host": host, "port": port}
