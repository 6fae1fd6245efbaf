"""A plant at the controller's end of a site: a Modbus server and an MQTT broker that others wrote, reached by the machines of the site.

    tools/machines.py background SITE plant .venv/bin/python -m tests.peers.plant [--broker]

The Modbus server (libmodbus, in C) listens on 10.77.0.1:5020 with two meters (units 1 and 2): holding registers 0 and 1 are the
float that counts up five times a second, so that a consumer can see that readings are new; register 10 may be written. On port 5021
another one speaks RTU, for the far end of a serial line (unit 11).
With ``--broker`` a mosquitto listens in the clear on 10.77.0.1:1883; it stands for a cloud's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from tests.peers.libmodbus import LibmodbusServer, registers
from tests.peers.mosquitto import Mosquitto

HOST: Final = "10.77.0.1"
MODBUS_PORT: Final = 5020
LINE_PORT: Final = 5021
BROKER_PORT: Final = 1883
UNITS: Final = (1, 2)
LINE_UNITS: Final = (11,)


@contextlib.asynccontextmanager
async def reached_from_outside(port: int, outside: int) -> AsyncIterator[None]:
    """The server on loopback answers the machines too."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):  # one end went: so does the other
            while chunk := await reader.read(4096):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, to_server), copy(from_server, writer))

    async with await asyncio.start_server(relay, HOST, outside):
        yield


async def main(*, broker: bool) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with contextlib.AsyncExitStack() as stack:
        if broker:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            stack.enter_context(Mosquitto(folder, config="max_queued_messages 100000", host=HOST, port=BROKER_PORT, quiet=True))
        server = await stack.enter_async_context(LibmodbusServer(units=UNITS))
        line = await stack.enter_async_context(LibmodbusServer(units=LINE_UNITS, framing="rtu-tcp"))
        await stack.enter_async_context(reached_from_outside(server.port, MODBUS_PORT))
        await stack.enter_async_context(reached_from_outside(line.port, LINE_PORT))
        count = 0
        while not ended.is_set():
            count += 1
            for peer, unit in (*((server, unit) for unit in UNITS), *((line, unit) for unit in LINE_UNITS)):
                await peer.set(unit, "holding", 0, *registers("f", float(count * 100 + unit)))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), 0.2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A plant for the machines of a site")
    parser.add_argument("--broker", action="store_true", help="an MQTT broker too")
    asyncio.run(main(broker=parser.parse_args().broker))
