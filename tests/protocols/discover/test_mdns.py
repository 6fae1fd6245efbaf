"""What announces itself on a network is told with the connection that leads to it; here on loopback alone."""

from __future__ import annotations

import socket
from contextlib import aclosing

from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from protocols.clock import SystemClock
from protocols.contract import Candidate
from protocols.discover.mdns import announced

LOOPBACK = "127.0.0.1"


async def test_services_that_announce_themselves_are_told() -> None:
    kind = "_opcua-tcp._tcp.local."
    service = AsyncServiceInfo(
        kind, f"Boiler 7.{kind}", addresses=[socket.inet_aton(LOOPBACK)], port=4841, properties={"path": "/ua"}, server="boiler7.local."
    )
    network = AsyncZeroconf(interfaces=[LOOPBACK])
    try:
        await (await network.async_register_service(service))
        found: list[Candidate] = []
        async with aclosing(announced(SystemClock(), 20.0, [LOOPBACK])) as services:
            async for each in services:
                found.append(each)
                if "Boiler 7" in each.detail:
                    break
    finally:
        await network.async_close()
    assert (found[-1].where, found[-1].detail) == (f"_opcua-tcp._tcp at {LOOPBACK}:4841", "Boiler 7, path=/ua")
    assert found[-1].options == {"type": "opcua", "endpoint": f"opc.tcp://{LOOPBACK}:4841/ua"}
