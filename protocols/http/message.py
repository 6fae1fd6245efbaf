"""What an HTTP message says beside its values: when to come again, how its body is packed, where it leads. Pure.

Everything here comes from a peer that may lie: whatever it says gives an answer or a :class:`Broken`, never another error,
and nothing grows beyond the limit that the caller gives.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from yarl import URL

LONGEST_HOLD_S: Final = 3600.0
"""A peer that asks to be left alone for longer is asked again after this all the same."""
_GZIP: Final = 31
_ZLIB: Final = 15
_RAW: Final = -15
"""What zlib calls the three wrappings (its windowBits): with a header of gzip, of zlib, without any."""


class Broken(Exception):
    """The message breaks its own rules. The text says how."""


def retry_after_s(text: str, now_ns: int) -> float | None:
    """Seconds to wait by a Retry-After header (RFC 9110, 10.2.3: seconds or a date), at most LONGEST_HOLD_S; None where it is none."""
    text = text.strip()
    if not text or len(text) > 64 or not text.isascii():
        return None
    if text.isdigit():
        return min(float(text), LONGEST_HOLD_S)
    try:
        moment = parsedate_to_datetime(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        wait_s = (moment - datetime.fromtimestamp(now_ns / 1e9, UTC)).total_seconds()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return min(max(wait_s, 0.0), LONGEST_HOLD_S)


class Body:
    """Takes a body as it comes, unpacks it, and is never longer than ``most`` bytes, packed or not. One use."""

    def __init__(self, encoding: str, most: int) -> None:
        """``encoding`` is the Content-Encoding header (RFC 9110, 8.4). Raises Broken where we did not ask for it."""
        self._most = most
        self._content = bytearray()
        self._packed = 0
        self._wraps = _wrapping(encoding)
        self._unpack = zlib.decompressobj(_GZIP) if self._wraps == _GZIP else None

    def take(self, chunk: bytes) -> None:
        """Raises Broken where it grows too long or cannot be unpacked."""
        self._packed += len(chunk)
        if self._packed > self._most:
            raise Broken(f"the body is longer than the {self._most} bytes of max_bytes")
        if not self._wraps or not chunk:
            self._content += chunk
            return
        if self._unpack is None:  # "deflate" is zlib's form by the book, and the bare one by habit: its first byte tells
            self._unpack = zlib.decompressobj(_ZLIB if chunk[0] & 0x0F == 8 and chunk[0] >> 4 <= 7 else _RAW)
        try:
            self._content += self._unpack.decompress(chunk, self._most + 1 - len(self._content))
        except zlib.error as error:
            raise Broken(f"the body cannot be unpacked ({str(error)[:80]})") from None
        if len(self._content) > self._most:
            raise Broken(f"the body is longer than the {self._most} bytes of max_bytes when it is unpacked")
        if self._unpack.unused_data:
            raise Broken("something follows the end of the packed body")

    def whole(self) -> bytes:
        """All of it. Raises Broken where the packed form has not come to its end."""
        if self._wraps and self._packed and (self._unpack is None or not self._unpack.eof):
            raise Broken("the packed body ends too early")
        return bytes(self._content)


def _wrapping(encoding: str) -> int:
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return 0
    if name in ("gzip", "x-gzip"):
        return _GZIP
    if name == "deflate":
        return _ZLIB
    raise Broken(f"the body is packed as {shown(encoding)}, which was not asked for")


def redirected(asked: URL, location: str) -> URL:
    """Where ``location`` leads from ``asked``: the same scheme, host and port, or Broken with the reason."""
    if not location or len(location) > 2000 or not location.isascii() or not location.isprintable():
        raise Broken("the redirect leads nowhere")
    try:
        there = asked.join(URL(location, encoded=True))
        same = _place(there) == _place(asked) and not there.user and not there.password
    except ValueError:
        raise Broken("the redirect leads nowhere") from None
    if not same:
        raise Broken(f"the redirect leads to another place ({shown(location)}): it is not followed")
    return there


def _place(url: URL) -> tuple[str, str, int | None]:
    return url.scheme.lower(), (url.host or "").lower(), url.port


def shown(text: str, most: int = 80) -> str:
    """What a peer said, fit for a log line: printable ASCII, short, and no more than one line."""
    plain = "".join(sign if " " <= sign <= "~" else "?" for sign in text[: most + 1])
    return plain if len(plain) <= most else plain[:most] + "..."


def joined(parts: Iterable[str]) -> str:
    return "; ".join(part for part in parts if part)
