"""The consumer of the benches, as a process of its own: counts what a product delivers to the broker.

    python -m tests.bench.peers.subscriber PORT PRODUCT TAGS

says ``ready`` once it is subscribed and answers a line of commands: ``forget`` (count from here on), ``count`` (how many
values came), ``rounds`` (from here on note rounds), ``report`` (everything, as JSON).

For thingsboard-gateway it also plays the little of a ThingsBoard server that the gateway waits for: it answers the request
for the session's limits with what a server with its default configuration answers.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import replace
from typing import Final

import aiomqtt

from tests.bench.peers.tally import DECODERS, Tally

ASKED: Final = "v1/devices/me/rpc/request/"
ANSWERED: Final = "v1/devices/me/rpc/response/"
LIMITS: Final = {"maxPayloadSize": 65536, "maxInflightMessages": 100, "rateLimits": {}, "gatewayRateLimits": {}}


async def main(port: int, product: str, tags: int) -> None:
    topics, decode = DECODERS[product]
    tally = Tally(decode, tags)
    async with aiomqtt.Client("127.0.0.1", port, identifier="bench-subscriber") as client:
        await client.subscribe(topics, qos=1)
        await client.subscribe(ASKED + "+", qos=1)
        listening = asyncio.ensure_future(_listen(client, tally))
        _say("ready")
        commands = asyncio.ensure_future(_obey(tally))
        await asyncio.wait((listening, commands), return_when=asyncio.FIRST_COMPLETED)
        for task in (listening, commands):
            if task.done():
                task.result()
            task.cancel()


async def _listen(client: aiomqtt.Client, tally: Tally) -> None:
    async for message in client.messages:
        now, topic = time.time_ns(), str(message.topic)
        assert isinstance(message.payload, bytes)
        if topic.startswith(ASKED):
            await client.publish(ANSWERED + topic.removeprefix(ASKED), json.dumps(LIMITS), qos=1)
        else:
            tally.add(topic, message.payload, now)


async def _obey(tally: Tally) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().strip():
        if line in ("forget", "rounds"):
            vars(tally).update(vars(replace(Tally(tally.decode, tally.tags), by_round=line == "rounds")))
            _say("ok")
        elif line == "count":
            _say(f"ok {sum(tally.values.values())} {len(tally.values)}")
        elif line == "report":
            _say(f"ok {json.dumps(_report(tally), separators=(',', ':'))}")
        else:
            _say(f"error what is {line!r}")


def _report(tally: Tally) -> dict[str, object]:
    return {
        "messages": tally.messages,
        "values": tally.values,
        "wrong": tally.wrong,
        "arrivals": tally.arrivals,
        "rounds": tally.rounds,
    }


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
