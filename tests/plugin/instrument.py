"""A simulated SCPI instrument as a process of its own: the peer of the example driver, ours for want of one by others.

It is steered through standard input (see ``tests/peers/program.py``): ``set NAME TEXT`` gives query ``NAME?`` an answer, ``stick NAME``
takes commands and ignores them, ``mode WORD`` misbehaves, ``seen`` tells what it was asked.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Final

PATIENCE: Final = 200
"""Pieces of a flood; more than anybody should take."""


class Instrument:
    """Its settings and its error queue, which every message empties."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.stuck: set[str] = set()
        self.mode = "well"
        self.seen: list[str] = []
        self.error = '0,"No error"'

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                await self.answer(line.decode().strip(), writer)
        except OSError:
            return  # the client left, as clients may
        finally:
            writer.close()

    async def answer(self, message: str, writer: asyncio.StreamWriter) -> None:
        if self.mode != "well":
            await MISDEEDS[self.mode](self, writer)
        elif message == ":SYSTem:ERRor?":
            writer.write(f"{self.error}\n".encode())
            self.error = '0,"No error"'
        elif message.endswith("?"):
            self.seen.append("read")
            name = message[:-1]
            if name in self.values:
                writer.write(f"{self.values[name]}\n".encode())
            else:
                self.error = '-113,"Undefined header"'
        else:
            self.seen.append("write")
            name, _, value = message.partition(" ")
            if name not in self.values:
                self.error = '-113,"Undefined header"'
            elif name not in self.stuck:
                self.values[name] = value
        await writer.drain()


async def _silent(instrument: Instrument, writer: asyncio.StreamWriter) -> None:
    pass


async def _slam(instrument: Instrument, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _garbage(instrument: Instrument, writer: asyncio.StreamWriter) -> None:
    writer.write(bytes(range(256)) + b"\n")


async def _endless(instrument: Instrument, writer: asyncio.StreamWriter) -> None:
    for _ in range(PATIENCE):
        writer.write(b"1" * 65536)
        await writer.drain()


async def _lines(instrument: Instrument, writer: asyncio.StreamWriter) -> None:
    for _ in range(PATIENCE):
        writer.write(b"1e5\n" * 8192)
        await writer.drain()


async def _digits(instrument: Instrument, writer: asyncio.StreamWriter) -> None:
    writer.write(b"9" * 4000 + b'\n0,"No error"\n')


async def _nonsense(instrument: Instrument, writer: asyncio.StreamWriter) -> None:
    writer.write(b'HTTP/1.1 400 Bad Request\n0,"No error"\n')


MISDEEDS: Final[dict[str, Callable[[Instrument, asyncio.StreamWriter], Awaitable[None]]]] = {
    "silent": _silent,
    "slam": _slam,
    "garbage": _garbage,
    "endless": _endless,
    "lines": _lines,
    "digits": _digits,
    "nonsense": _nonsense,
}


async def main(port: int) -> None:
    instrument = Instrument()
    server = await asyncio.start_server(instrument.serve, "127.0.0.1", port)
    say(f"ready {server.sockets[0].getsockname()[1]}")
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        word, _, rest = line.strip().partition(" ")
        told = ""
        if word == "set":
            name, _, value = rest.partition(" ")
            instrument.values[name] = value
        elif word == "stick":
            instrument.stuck.add(rest)
        elif word == "mode":
            instrument.mode = rest
        else:
            told, instrument.seen = " ".join(instrument.seen), []
        say(f"ok {told}")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
