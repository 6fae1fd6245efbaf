"""The gateway as an OPC UA server: its tags as nodes, with type, unit, quality and source time; what a client writes is a command.

asyncua takes a second to import and its standard nodes 50 MB of memory, so both are fetched when a face is first started, in a thread.
"""

from __future__ import annotations

import asyncio
import importlib

from gateway.commands import Gate
from gateway.config.faces import OpcuaFace
from gateway.config.model import Gateway
from gateway.latest import Latest
from gateway.links import Status, Up
from protocols.clock import Clock


class OpcuaServer:
    """One OPC UA face while it is configured. :meth:`session` is what a link keeps."""

    def __init__(self, face: OpcuaFace, gateway: Gateway, latest: Latest, gate: Gate, status: Status, clock: Clock) -> None:
        self._parts = (face, gateway, latest, gate, status, clock)

    async def session(self, up: Up) -> None:
        """Serve until cancelled. Raises Unreachable where the address cannot be used, Misfit where a certificate cannot."""
        serve = await asyncio.to_thread(importlib.import_module, "gateway.faces.opcua.serve")
        await serve.session(*self._parts, up)
