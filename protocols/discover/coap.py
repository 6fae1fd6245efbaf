"""What a CoAP host offers: one question for ``/.well-known/core``, sent to that host alone (RFC 7252, 7.2; RFC 6690).

Datagrams are written and read here by hand; a long list comes block by block (RFC 7959). Never a multicast: many answers to one
small question is how CoAP hosts are made to flood others.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
from dataclasses import dataclass, field
from typing import Final

from protocols.contract import Candidate, Misfit, Unreachable

PORT: Final = 5683
MAX_BLOCKS: Final = 128
MAX_BYTES: Final = 64 * 1024
MAX_LINKS: Final = 1000
MAX_SHOWN: Final = 200
FIRST_WAIT_S: Final = 0.5
_CON, _ACK = 0, 2
_GET, _CONTENT = 0x01, 0x45
_URI_PATH, _BLOCK2 = 11, 23
_PATH: Final = (b".well-known", b"core")
_LINK: Final = re.compile(r'<([^<>"\s]{0,255})>((?:;[^<>",;=]+(?:="[^"]*"|=[^",;]*)?)*)')


@dataclass(frozen=True, slots=True)
class Message:
    """A CoAP message (RFC 7252, 3)."""

    kind: int
    code: int
    id: int
    token: bytes
    options: tuple[tuple[int, bytes], ...] = ()
    payload: bytes = b""


class Broken(ValueError):
    """Bytes that are no CoAP message."""


def encoded(message: Message) -> bytes:
    head = bytes((0x40 | message.kind << 4 | len(message.token), message.code)) + message.id.to_bytes(2, "big") + message.token
    body, before = b"", 0
    for number, value in sorted(message.options, key=lambda option: option[0]):
        body += bytes((number - before << 4 | len(value),)) + value  # all of ours are below 13
        before = number
    return head + body + (b"\xff" + message.payload if message.payload else b"")


def decoded(content: bytes) -> Message:
    """Raises Broken."""
    if len(content) < 4 or content[0] >> 6 != 1 or content[0] & 15 > 8:
        raise Broken("no CoAP message")
    at = 4 + (content[0] & 15)
    options, number = [], 0
    while at < len(content) and content[at] != 0xFF:
        delta, length, at = content[at] >> 4, content[at] & 15, at + 1
        delta, at = _extended(content, delta, at)
        length, at = _extended(content, length, at)
        number += delta
        if at + length > len(content):
            raise Broken("an option that is longer than its message")
        options.append((number, content[at : at + length]))
        at += length
    payload = content[at + 1 :]
    return Message(
        content[0] >> 4 & 3, content[1], int.from_bytes(content[2:4], "big"), content[4 : 4 + (content[0] & 15)], tuple(options), payload
    )


def _extended(content: bytes, nibble: int, at: int) -> tuple[int, int]:
    """Delta or length with its extension (RFC 7252, 3.1), and where the message goes on."""
    if nibble < 13:
        return nibble, at
    size = nibble - 12
    if nibble == 15 or at + size > len(content):
        raise Broken("an option that is cut off")
    return int.from_bytes(content[at : at + size], "big") + (13 if size == 1 else 269), at + size


@dataclass
class _Peer(asyncio.DatagramProtocol):
    """Datagrams of one host, as they come."""

    heard: asyncio.Queue[bytes | OSError] = field(default_factory=lambda: asyncio.Queue(64))

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.heard.full():
            self.heard.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        if isinstance(exc, OSError) and not self.heard.full():
            self.heard.put_nowait(exc)


async def resources(host: str, port: int = PORT, *, timeout_s: float = 5.0) -> list[Candidate]:
    """What ``host`` offers, one candidate a resource. Raises Unreachable, or Misfit where its answer is none."""
    where = f"{host}:{port}"
    try:
        async with asyncio.timeout(timeout_s):
            transport, peer = await asyncio.get_running_loop().create_datagram_endpoint(_Peer, remote_addr=(host, port))
            try:
                text = await _listed(transport, peer)
            finally:
                transport.close()
    except TimeoutError as error:
        raise Unreachable(f"{where}: no answer within {timeout_s:g} s: check address, port and firewall") from error
    except socket.gaierror as error:
        raise Unreachable(f"{where}: the name is not known ({error.strerror}): check it, or the name server") from error
    except OSError as error:
        raise Unreachable(f"{where}: {error.strerror or error}: check address and port, and that the device is on") from error
    except Broken as error:
        raise Misfit(f"{where}: {error}: check the port") from error
    return [_candidate(host, port, path, attributes) for path, attributes in links(text)]


async def _listed(transport: asyncio.DatagramTransport, peer: _Peer) -> str:
    """The whole list, put together from its blocks."""
    content, number, size = b"", 0, 6
    for _ in range(MAX_BLOCKS):
        answer = await _ask(transport, peer, _block(number, size) if number else None)
        if answer.code != _CONTENT:
            raise Broken(f"it answers {answer.code >> 5}.{answer.code & 31:02d}: it keeps no list of its resources")
        content += answer.payload
        block = next((int.from_bytes(value[:3], "big") for kind, value in answer.options if kind == _BLOCK2), 0)
        if not block & 8 or len(content) > MAX_BYTES:
            return content[:MAX_BYTES].decode("utf-8", "replace")
        size, number = block & 7, number + 1
    raise Broken("a list without an end")


def _block(number: int, size: int) -> bytes:
    value = number << 4 | size
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


async def _ask(transport: asyncio.DatagramTransport, peer: _Peer, block: bytes | None) -> Message:
    """Send one question until it is answered; an empty acknowledgement says that the answer comes later (RFC 7252, 5.2.2)."""
    options = tuple((_URI_PATH, part) for part in _PATH) + (((_BLOCK2, block),) if block is not None else ())
    question = Message(_CON, _GET, int.from_bytes(secrets.token_bytes(2), "big"), secrets.token_bytes(4), options)
    wait_s, acknowledged = FIRST_WAIT_S, False
    while True:
        if not acknowledged:
            transport.sendto(encoded(question))
        try:
            async with asyncio.timeout(wait_s):
                while True:
                    heard = await peer.heard.get()
                    if isinstance(heard, OSError):
                        raise heard
                    answer = decoded(heard)
                    if answer.token == question.token and answer.code:
                        if answer.kind == _CON:
                            transport.sendto(encoded(Message(_ACK, 0, answer.id, b"")))
                        return answer
                    acknowledged = acknowledged or (answer.kind == _ACK and answer.id == question.id)
        except TimeoutError:
            wait_s *= 2


def links(text: str) -> list[tuple[str, dict[str, str]]]:
    """Targets and attributes of a list in link format (RFC 6690, 2). What is no link is passed over."""
    found = []
    for match in list(_LINK.finditer(text))[:MAX_LINKS]:
        pairs = (part.partition("=") for part in re.findall(r';((?:[^";]|"[^"]*")+)', match[2]))
        found.append((match[1], {name.strip(): value.strip('"') for name, _, value in pairs}))
    return found


def _candidate(host: str, port: int, path: str, attributes: dict[str, str]) -> Candidate:
    authority = (f"[{host}]" if ":" in host else host) + (f":{port}" if port != PORT else "")
    told = ", ".join(name if not value else f"{name} {value}" for name, value in attributes.items())
    shown = "".join(character if character.isprintable() else " " for character in told)[:MAX_SHOWN]
    place = {"host": host} if port == PORT else {"host": host, "port": port}
    device = {"name": f"coap-{host}".replace(":", "-"), **place, "resources": [{"path": path}]}
    return Candidate(where=f"coap://{authority}{path}", detail=shown, options={"type": "coap", "devices": [device]})
