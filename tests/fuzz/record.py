"""Writes the corpus anew: asks real peers and keeps what they say. ``python -m tests.fuzz.record``; it needs what the tests need.

libmodbus and our C server answer every function; the npm package ``sparkplug-payload`` and our own gateway write payloads;
mosquitto says what a broker says, in MQTT 3.1.1 and 5.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from gateway.config.model import SparkplugUplink
from gateway.journal.record import Lane
from gateway.uplink.mark import Ack, LostSpan, Mark, Stamp, acknowledge, encode, encode_stamp
from protocols.model import Kind
from protocols.sparkplug import metric
from protocols.sparkplug.session import REBIRTH
from protocols.sparkplug.template import assemble
from tests.fuzz import corpus
from tests.gateway.uplink.host import host
from tests.gateway.uplink.plant import BOILER, PUMP, kept, plant, sparkplug
from tests.peers.fast import FastModbus
from tests.peers.libmodbus import Framing, LibmodbusServer
from tests.peers.mosquitto import Mosquitto
from tests.peers.sparkplug_payload import NODE
from tests.peers.unit import rtu_frame, tcp_frame

REQUESTS: Final = {
    "coils": "0100000013",
    "discrete": "0200000009",
    "holding": "0300000003",
    "input": "040000000a",
    "most-holding": "030000007d",
    "one-coil": "050003ff00",
    "one-register": "0600010003",
    "coils-15": "0f0000000a02cd01",
    "registers-16": "100001000204000a0102",
    "mask-22": "16000400f20025",
    "no-address": "03c3500001",
    "too-many": "0300000080",
    "no-function": "2b0e0100",
}


async def modbus() -> None:
    """Every function's answer, and exceptions, as TCP and as RTU frames."""
    framings: tuple[Framing, ...] = ("tcp", "rtu-tcp")
    for framing in framings:
        found: dict[str, bytes] = {}
        async with LibmodbusServer(units=(17,), framing=framing) as server:
            await server.set(17, "holding", 0, *range(1, 200))
            await server.set(17, "input", 0, *range(0xFF00, 0xFF40))
            await server.set(17, "coil", 0, *([1, 0, 1, 1] * 10))
            await server.hole(17, "holding", 50000, 50001)
            for name, pdu in REQUESTS.items():
                content = bytes.fromhex(pdu)
                frame = tcp_frame(5, 17, content) if framing == "tcp" else rtu_frame(17, content)
                if answer := await _asked(server.port, frame):
                    found[name] = answer
        corpus.save(f"libmodbus-{framing}", f"libmodbus' answers of unit 17 ({framing}); what was asked stands in record.py", found)
    async with FastModbus() as fast:
        frames = {name: tcp_frame(5, 17, bytes.fromhex(pdu)) for name, pdu in REQUESTS.items() if int(pdu[:2], 16) in (3, 4)}
        corpus.save("fast-modbus", "our C server's answers", {name: await _asked(fast.ports[0], frame) for name, frame in frames.items()})


async def _asked(port: int, frame: bytes) -> bytes:
    """What comes within a moment after ``frame``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(frame)
    try:
        async with asyncio.timeout(1.0):
            return await reader.read(4096)
    except TimeoutError:
        return b""
    finally:
        writer.close()


async def gateway_and_broker() -> None:
    """A session of our own gateway as a host sees it, and all that mosquitto says meanwhile."""
    with tempfile.TemporaryDirectory() as folder, Mosquitto(Path(folder) / "broker") as broker:
        async with plant(Path(folder) / "journal") as made, host(broker.port) as seen:
            made.has(BOILER, PUMP)
            made.bring(BOILER, {"steam/pressure": 9.5})
            made.journal.reader("cloud")
            await made.stored()
            async with kept(sparkplug(made, SparkplugUplink(name="cloud", host="127.0.0.1", port=broker.port))):
                await seen.expect("DBIRTH", "pump")
                made.bring(BOILER, {"steam/pressure": 9.25})
                made.bring(BOILER, {"burner/on": True})
                made.bring(PUMP, {"speed": -0.0})
                made.lose(PUMP)
                await made.delivered()
                await seen.expect("DDEATH", "pump")
            messages: dict[str, bytes] = {}
            for one in seen.seen:
                name = f"{one.verb}/{one.device}".strip("/")
                messages[f"{name}/{sum(other.startswith(name) for other in messages)}"] = one.message.payload
            marks = {name: payload for name, payload in messages.items() if name.startswith("mark")}
            corpus.save("own-sparkplug", "a session of our own gateway, decoded by its host", {**dict(messages.items() - marks.items())})
            corpus.save("own-marks", "ledger marks, acknowledgements, stamps", {**marks, **made_up()})
        for level in (4, 5):
            await broker_packets(broker.port, level)


def made_up() -> dict[str, bytes]:
    """Messages of ours that the session above has no reason to send."""
    mark = Mark(
        uplink="cloud",
        group="plant",
        gateway="gw",
        window=7,
        lane=Lane.TELEMETRY,
        epoch=3,
        first=10,
        last=19,
        previous=(2, 9),
        records=8,
        values=80,
        messages=4,
        digest="00ff00ff00ff00ff",
        lost=(LostSpan(12, 13, "full"),),
        historical=True,
    )
    ack: Ack = acknowledge(mark)
    return {
        "mark/lost": encode(mark),
        "ack": encode(ack),
        "stamp": encode_stamp(Stamp(7, Lane.TELEMETRY, 3, (10, 11, 14, 300))),
        "stamp/part": encode_stamp(Stamp(2**40, Lane.EVENTS, 2**33, (2**50,), 3, 4)),
    }


def commands() -> None:
    """Commands as hosts send them: Rebirth, and writes of every kind that a payload can carry."""
    values: dict[Kind, metric.Value] = {
        Kind.BOOL: True,
        Kind.INT64: -1,
        Kind.UINT64: 2**64 - 1,
        Kind.FLOAT32: 1.5,
        Kind.FLOAT64: 0.1,
        Kind.STRING: "x",
        Kind.BYTES: b"\0\xff",
    }
    found = {"rebirth": assemble([metric.node_metric(REBIRTH, Kind.BOOL, True, 10**18)], seq=None, time_ns=10**18)}
    for kind, value in values.items():
        found[kind] = assemble([metric.node_metric(f"set/{kind}", kind, value, 10**18)], seq=None, time_ns=10**18)
    corpus.save("own-commands", "commands, written by our own encoder", found)


async def broker_packets(port: int, level: int) -> None:
    """CONNACK, SUBACK, PUBACK, PUBLISH, PINGRESP and UNSUBACK of mosquitto; each is all that came for one packet of ours."""
    props = b"\0" if level == 5 else b""
    name = b"\0\x04fuzz"
    connect = b"\0\x04MQTT" + bytes((level, 2)) + b"\0\x3c" + props + name
    topic = b"\0\x03a/b"
    packets = {
        "connack": _packet(0x10, connect),
        "suback": _packet(0x82, b"\0\x01" + props + topic + b"\x01"),
        "publish": _packet(0x30, topic + props + b"hello"),
        "puback-and-publish": _packet(0x32, topic + b"\0\x02" + props + b"once"),
        "pingresp": b"\xc0\0",
        "unsuback": _packet(0xA2, b"\0\x03" + props + topic),
        "puback-nobody": _packet(0x32, topic + b"\0\x04" + props + b"once"),
    }
    found: dict[str, bytes] = {}
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for word, packet in packets.items():
        writer.write(packet)
        found[word] = await reader.read(4096)
        try:
            async with asyncio.timeout(0.2):
                found[word] += await reader.read(4096)
        except TimeoutError:
            pass  # that was all
    writer.close()
    corpus.save(f"mosquitto-{level}", f"mosquitto's packets, MQTT protocol level {level}", found)


def _packet(head: int, content: bytes) -> bytes:
    return bytes((head, len(content))) + content


def peer_payloads() -> None:
    """Every type, with properties, a data set, a template and a null, as the npm package writes them."""
    package = NODE / "node_modules" / "sparkplug-payload" / "lib" / "sparkplugbpayload.js"
    script = Path(__file__).with_name("encode.mjs")
    done = subprocess.run(["node", str(script), str(package)], capture_output=True, check=True, timeout=60, text=True)
    found = {word: bytes.fromhex(digits) for word, digits in (line.split(" ") for line in done.stdout.splitlines())}
    corpus.save("npm-sparkplug", "payloads of the npm package sparkplug-payload", found)


async def main() -> None:
    corpus.FOLDER.mkdir(exist_ok=True)
    began = time.monotonic()
    await modbus()
    await gateway_and_broker()
    commands()
    peer_payloads()
    print(f"{len(list(corpus.FOLDER.iterdir()))} files in {time.monotonic() - began:.1f} s")  # noqa: T201 # a program's word to its user


if __name__ == "__main__":
    asyncio.run(main())
