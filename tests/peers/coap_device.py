"""Two CoAP devices on aiocoap's server, steered by one-line commands (``program.py``); run as a program of its own.

Each listens on a port of its own, by UDP, TCP or TLS, with or without OSCORE. Commands, answered ``ok`` with what was asked for:

    set DEVICE PATH FORMAT HEX     the resource is there, and holds these bytes (FORMAT: a CoAP content format); observers are told
    keep DEVICE PATH               it says yes to what is written, and does not change
    silent DEVICE 0|1              nothing that comes is answered
    requests DEVICE                ``read`` or ``write`` for each request since this was last asked
    observers DEVICE PATH          how many observe it
    age DEVICE PATH SECONDS        the Max-Age of what it says; ``notify DEVICE PATH`` tells observers though nothing changed
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import Callable
from typing import Any, Final

import aiocoap  # type: ignore[import-untyped] # it has no marker
from aiocoap import resource
from aiocoap.oscore_sitewrapper import OscoreSiteWrapper  # type: ignore[import-untyped] # as above
from aiocoap.transports import tcp  # type: ignore[import-untyped] # as above

TRANSPORTS: Final = {"coap": ["udp6"], "coap+tcp": ["tcpserver"], "coaps+tcp": ["tlsserver"]}
MOST_SEEN: Final = 8192


class Resource(resource.ObservableResource):  # type: ignore[misc] # aiocoap has no types
    """Bytes that can be read, observed and written."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen, self.content, self.format = seen, b"", 0
        self.keeps = False
        self.max_age: int | None = None
        self.observers = 0

    def update_observation_count(self, newcount: int) -> None:
        self.observers = newcount

    async def render_get(self, request: Any) -> Any:  # Any: aiocoap's messages
        self._note("read")
        answer = aiocoap.Message(payload=self.content, content_format=self.format)
        if self.max_age is not None:
            answer.opt.max_age = self.max_age
        return answer

    async def render_put(self, request: Any) -> Any:  # Any: as above
        self._note("write")
        if not self.keeps:
            self.content = request.payload
            if request.opt.content_format is not None:
                self.format = int(request.opt.content_format)
            self.updated_state()
        return aiocoap.Message(code=aiocoap.CHANGED)

    render_post = render_put

    def _note(self, what: str) -> None:
        if len(self.seen) < MOST_SEEN:
            self.seen.append(what)


class Device:
    """One CoAP host."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.site = resource.Site()
        self.site.add_resource([".well-known", "core"], resource.WKCResource(self.site.get_resources_as_linkheader, impl_info=None))
        self.resources: dict[str, Resource] = {}
        self.silent = False

    async def serve(self, options: dict[str, Any]) -> None:  # Any: JSON
        site, keys = self.site, aiocoap.credentials.CredentialsMap()
        if options.get("oscore"):
            keys.load_from_dict({":client": {"oscore": {"basedir": options["oscore"]}}})
            site = OscoreSiteWrapper(site, keys)
        context = None
        port = options["port"]
        if options["scheme"] == "coaps+tcp":
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=options["ca_file"])
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_cert_chain(options["cert_file"], options["key_file"])
            port -= 1  # aiocoap adds one for TLS
        server = await aiocoap.Context.create_server_context(
            site, bind=("127.0.0.1", port), transports=TRANSPORTS[options["scheme"]], _ssl_context=context, server_credentials=keys
        )
        self.server = server  # one that nobody holds is collected, sockets and all
        for each in server.request_interfaces:
            inner = each.token_interface
            inner.holdfast_device = self  # found by the connections of TCP
            if options["scheme"] == "coap":
                inner.dispatch_message = self._unless_silent(inner.dispatch_message)

    def _unless_silent(self, act: Callable[[Any], Any]) -> Callable[[Any], Any]:  # Any: aiocoap's messages
        def passed(message: Any) -> Any:  # Any: as above
            return None if self.silent else act(message)

        return passed

    def at(self, path: str) -> Resource:
        found = self.resources.get(path)
        if found is None:
            found = self.resources[path] = Resource(self.seen)
            self.site.add_resource([] if path == "/" else path[1:].split("/"), found)
        return found


def obey(devices: dict[str, Device], words: list[str]) -> str:
    """Carry out one command."""
    match words:
        case ["set", device, path, form, *content]:
            there = devices[device].at(path)
            there.content, there.format = bytes.fromhex("".join(content)), int(form)
            there.updated_state()
        case ["keep", device, path]:
            devices[device].at(path).keeps = True
        case ["silent", device, silent]:
            devices[device].silent = silent == "1"
        case ["requests", device]:
            said = " ".join(devices[device].seen)
            devices[device].seen.clear()
            return said
        case ["observers", device, path]:
            return str(devices[device].at(path).observers)
        case ["age", device, path, seconds]:
            devices[device].at(path).max_age = int(seconds)
        case ["notify", device, path]:
            devices[device].at(path).updated_state()
        case _:
            raise ValueError(f"no command: {words}")
    return ""


class Connection(tcp.TcpConnection):  # type: ignore[misc] # aiocoap has no types
    """A connection that takes everything and says nothing while its device is silent, signs of life included."""

    def data_received(self, data: bytes) -> None:
        if not self._ctx.holdfast_device.silent:
            super().data_received(data)


async def main() -> None:
    tcp.TcpConnection = Connection
    options = json.loads(sys.argv[1])
    devices = {name: Device() for name in options}
    for name, device in devices.items():
        await device.serve(options[name])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    reader = asyncio.StreamReader(limit=4 * 1024**2)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            answer = f"ok {obey(devices, line.decode().split())}"
        except (KeyError, ValueError) as error:
            answer = f"error {error!r}"
        sys.stdout.write(answer.replace("\n", " ") + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
