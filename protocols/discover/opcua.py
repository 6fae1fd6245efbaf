"""Which endpoints an OPC UA server offers: hello, an unsecured channel, GetEndpoints (Part 6, 7.1; Part 4, 5.5.4).

Servers answer this to anybody, whatever they ask of a session: that is how a client learns what to ask for. The few messages are
written and read here by hand (Part 6, 5.2); every length that a server claims has a limit.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Final

from protocols.contract import Candidate, Misfit, Unreachable

PORT: Final = 4840
MAX_MESSAGE: Final = 1024**2
MAX_CHUNK: Final = 64 * 1024
MAX_ENDPOINTS: Final = 200
MAX_ITEMS: Final = 1000
MAX_SHOWN: Final = 200
_NONE_POLICY: Final = "http://opcfoundation.org/UA/SecurityPolicy#None"
_OPEN, _OPENED, _GET_ENDPOINTS, _ENDPOINTS, _FAULT = 446, 449, 428, 431, 397
"""Numeric ids of the binary encodings (Part 6, annex A)."""
_POLICIES: Final = ("Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss")
_MODES: Final = {1: "no security", 2: "sign", 3: "sign and encrypt"}
_TOKENS: Final = {0: "anonymous", 1: "user name", 2: "certificate", 3: "issued token"}
_NULL: Final = struct.pack("<i", -1)
_EPOCH: Final = 116444736000000000
"""1970 in the 100 ns since 1601 in which OPC UA counts."""


class NotOpcUa(ValueError):
    """What the server sent is no message of this kind."""


async def endpoints(host: str, port: int = PORT, *, timeout_s: float = 5.0, time_ns: int = 0) -> list[Candidate]:
    """What the server at ``host`` offers, one candidate an endpoint. Raises Unreachable, or Misfit where it is no OPC UA server."""
    where = f"{host}:{port}"
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port, limit=MAX_CHUNK)
            try:
                return await _conversation(reader, writer, f"opc.tcp://{where}", time_ns)
            finally:
                writer.close()
    except TimeoutError as error:
        raise Unreachable(f"{where}: no answer within {timeout_s:g} s: check address, port and firewall") from error
    except OSError as error:
        raise Unreachable(f"{where}: {error.strerror or error}: check address and port, and that the server runs") from error
    except asyncio.IncompleteReadError as error:
        raise Misfit(f"{where}: closes the connection instead of answering: it may be no OPC UA server") from error
    except (NotOpcUa, struct.error, IndexError) as error:
        raise Misfit(f"{where}: what came is no OPC UA ({error}): check the port") from error


async def _conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: str, time_ns: int) -> list[Candidate]:
    hello = struct.pack("<IIIII", 0, 65535, 65535, MAX_MESSAGE, 16) + _string(url)
    writer.write(_framed(b"HEL", hello))
    await _chunk(reader, b"ACK")
    header = b"\0\0" + struct.pack("<qII", time_ns // 100 + _EPOCH, 1, 0) + _NULL + struct.pack("<I", 5000) + b"\0\0\0"
    opening = struct.pack("<III", 0, 0, 1) + _NULL + struct.pack("<I", 60_000)
    security = _string(_NONE_POLICY) + 2 * _NULL
    writer.write(_framed(b"OPN", b"\0\0\0\0" + security + struct.pack("<II", 1, 1) + _id(_OPEN) + header + opening))
    channel, token = _opened(_Reader((await _chunk(reader, b"OPN"))[1]))
    asking = _id(_GET_ENDPOINTS) + header + _string(url) + struct.pack("<ii", 0, 0)
    writer.write(_framed(b"MSG", struct.pack("<IIII", channel, token, 2, 2) + asking))
    return offered(await _whole(reader))


def _string(text: str) -> bytes:
    return struct.pack("<i", len(text.encode())) + text.encode()


def _id(number: int) -> bytes:
    """A node id of namespace 0 in four bytes (Part 6, 5.2.2.9)."""
    return struct.pack("<BBH", 1, 0, number)


def _framed(kind: bytes, body: bytes) -> bytes:
    return kind + b"F" + struct.pack("<I", 8 + len(body)) + body


async def _chunk(reader: asyncio.StreamReader, wanted: bytes) -> tuple[bytes, bytes]:
    """Whether more follow (``C``) or not (``F``), and the body of the next chunk."""
    head = await reader.readexactly(8)
    kind, more, size = head[:3], head[3:4], int.from_bytes(head[4:], "little")
    if kind not in (wanted, b"ERR") or not 8 <= size <= MAX_CHUNK:
        raise NotOpcUa(f"it begins with {head[:4]!r}")
    body = await reader.readexactly(size - 8)
    if kind == b"ERR":
        code, text = struct.unpack_from("<I", body)[0], _Reader(body, 4).text()
        raise NotOpcUa(f"the server refuses with 0x{code:08X} {text}".rstrip())
    return more, body


async def _whole(reader: asyncio.StreamReader) -> bytes:
    """The body of a message, put together from its chunks, without their headers."""
    content = b""
    while len(content) <= MAX_MESSAGE:
        more, body = await _chunk(reader, b"MSG")
        content += body[16:]  # channel, token, sequence number, request id
        if more == b"F":
            return content
        if more != b"C":
            break
    raise NotOpcUa("an answer that was broken off, or has no end")


class _Reader:
    """Reads the binary encoding (Part 6, 5.2.2) from the front. Raises struct.error or IndexError where it ends too soon."""

    def __init__(self, content: bytes, at: int = 0) -> None:
        self._content, self._at = content, at

    def number(self, form: str) -> int:
        (number,) = struct.unpack_from("<" + form, self._content, self._at)
        self._at += struct.calcsize("<" + form)
        return int(number)

    def skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._content):
            raise IndexError("it ends too soon")

    def octets(self) -> bytes:
        size = max(0, self.number("i"))
        begin = self._at
        self.skip(size)
        return self._content[begin : self._at]

    def text(self) -> str:
        """Printable and short: a person will read it."""
        shown = self.octets()[:MAX_SHOWN].decode("utf-8", "replace")
        return "".join(character if character.isprintable() else " " for character in shown)

    def count(self) -> int:
        count = max(0, self.number("i"))
        if count > MAX_ITEMS:
            raise NotOpcUa(f"it claims {count} items")
        return count

    def texts(self) -> list[str]:
        return [self.text() for _ in range(self.count())]

    def localized(self) -> str:
        mask = self.number("B")
        if mask & 1:
            self.text()
        return self.text() if mask & 2 else ""

    def type_id(self) -> int:
        """The numeric id of a message; 0 for a form that messages do not have."""
        form = self.number("B")
        if form == 0:
            return self.number("B")
        if form == 1:
            self.skip(1)
            return self.number("H")
        if form == 2:
            self.skip(2)
            return self.number("I")
        return 0

    def header(self, wanted: int) -> None:
        """The response header (Part 4, 7.33) of the message that was awaited."""
        if (kind := self.type_id()) not in (wanted, _FAULT):
            raise NotOpcUa(f"an answer of type {kind}")
        self.skip(12)
        code, diagnostics = self.number("I"), self.number("B")
        if code & 0x80000000 or diagnostics:
            raise NotOpcUa(f"the server refuses with 0x{code:08X}")
        self.texts()
        self.type_id()
        self.skip(1)


def _opened(body: _Reader) -> tuple[int, int]:
    """Channel and token of a channel that was opened."""
    body.skip(4)
    for _ in range(3):
        body.octets()
    body.skip(8)
    body.header(_OPENED)
    body.skip(4)
    return body.number("I"), body.number("I")


def offered(content: bytes) -> list[Candidate]:
    """The endpoints of a GetEndpointsResponse. Raises NotOpcUa."""
    body = _Reader(content)
    try:
        body.header(_ENDPOINTS)
        count = body.count()
        if count > MAX_ENDPOINTS:
            raise NotOpcUa(f"it claims {count} endpoints")
        return [_endpoint(body) for _ in range(count)]
    except (struct.error, IndexError) as error:
        raise NotOpcUa(f"an answer that is cut off ({error})") from error


def _endpoint(body: _Reader) -> Candidate:
    """One EndpointDescription (Part 4, 7.14)."""
    url = body.text()
    application, product, name = body.text(), body.text(), body.localized()
    body.skip(4)
    for _ in range(2):
        body.text()
    body.texts()
    body.octets()
    mode, policy = body.number("I"), body.text().rpartition("#")[2]
    users = [_user(body) for _ in range(body.count())]
    body.text()
    body.skip(1)
    security = f"{policy}, {_MODES.get(mode, 'unknown mode')}" if mode != 1 else "no security"
    who = f"{name or application or product}"
    detail = f"{who}; {security}; users: {', '.join(dict.fromkeys(users)) or 'none'}"
    return Candidate(where=url, detail=detail, options=_options(url, policy, mode))


def _user(body: _Reader) -> str:
    body.text()
    kind = body.number("I")
    for _ in range(3):
        body.text()
    return _TOKENS.get(kind, "unknown")


def _options(url: str, policy: str, mode: int) -> dict[str, object]:
    """None for a policy that is deprecated or unknown: it is told, and not proposed."""
    if mode != 1 and policy not in _POLICIES:
        return {}
    security = {"policy": policy, "mode": "sign" if mode == 2 else "sign-and-encrypt"} if mode != 1 else {"policy": "none"}
    return {"type": "opcua", "endpoint": url, "security": security}
