"""Devices that push, on aiocoap's client; run as a program of its own. Each thing that was set is pushed again and again.

set URI FORMAT HEX       push these bytes from now on (FORMAT: a CoAP content format)
once URI FORMAT HEX      push them once; answered ``ok CODE``, or ``ok none`` where no answer comes within two seconds
forget                   push nothing any more
answers                  how often each response code came since this was last asked: ``2.04=17``
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Final

import aiocoap  # type: ignore[import-untyped] # it has no marker
from aiocoap.numbers.constants import TransportTuning  # type: ignore[import-untyped] # as above

PAUSE_S: Final = 0.03
PATIENCE_S: Final = 2.0


class Quick(TransportTuning):  # type: ignore[misc] # aiocoap has no types
    """Repeats soon: a test does not wait for seconds."""

    ACK_TIMEOUT = 0.1


class Pusher:
    def __init__(self, context: aiocoap.Context) -> None:
        self.context = context
        self.things: dict[str, tuple[int, bytes]] = {}
        self.answers: Counter[str] = Counter()

    async def once(self, uri: str, form: int, content: bytes) -> str:
        request = aiocoap.Message(code=aiocoap.POST, uri=uri, payload=content, content_format=form, transport_tuning=Quick())
        try:
            async with asyncio.timeout(PATIENCE_S):
                response = await self.context.request(request).response
        except (TimeoutError, aiocoap.error.Error):
            return "none"
        return str(response.code.dotted)

    async def work(self) -> None:
        while True:
            for uri, (form, content) in tuple(self.things.items()):
                self.answers[await self.once(uri, form, content)] += 1
            await asyncio.sleep(PAUSE_S)

    async def obey(self, words: list[str]) -> str:
        match words:
            case ["set", uri, form, *content]:
                self.things[uri] = (int(form), bytes.fromhex("".join(content)))
            case ["once", uri, form, *content]:
                return await self.once(uri, int(form), bytes.fromhex("".join(content)))
            case ["forget"]:
                self.things.clear()
            case ["answers"]:
                said = " ".join(f"{code}={count}" for code, count in self.answers.items())
                self.answers.clear()
                return said
            case _:
                raise ValueError(f"no command: {words}")
        return ""


async def main() -> None:
    context = await aiocoap.Context.create_client_context(transports=["oscore", "udp6", "tcpclient", "tlsclient"])
    context.client_credentials.load_from_dict(json.loads(sys.argv[1]))
    pusher = Pusher(context)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    reader = asyncio.StreamReader(limit=4 * 1024**2)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    work = asyncio.create_task(pusher.work())
    while line := await reader.readline():
        try:
            answer = f"ok {await pusher.obey(line.decode().split())}"
        except ValueError as error:
            answer = f"error {error!r}"
        sys.stdout.write(answer.replace("\n", " ") + "\n")
        sys.stdout.flush()
    work.cancel()


if __name__ == "__main__":
    asyncio.run(main())
