"""How much is too much: rates, and deliveries that were taken already. Pure: time is an argument. Everything is bounded."""

from __future__ import annotations

import hashlib
import ipaddress
from collections import OrderedDict
from typing import Final

MOST_PEERS: Final = 4096
MOST_SEEN: Final = 16384


class Bucket:
    """So many a second on average, so many at once after a pause."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate, self._burst = rate_per_s, burst
        self._level, self._at = float(burst), -1.0

    def wait_s(self, now: float) -> float:
        """Take one: 0 where it may be taken, else seconds until one may (and none is taken). ``now`` is monotonic."""
        if self._at >= 0:
            self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._level >= 1:
            self._level -= 1
            return 0.0
        return (1 - self._level) / self._rate


class Buckets:
    """A bucket for each of the peers that came last."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate, self._burst = rate_per_s, burst
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def wait_s(self, peer: str, now: float) -> float:
        bucket = self._buckets.get(peer)
        if bucket is None:
            bucket = self._buckets[peer] = Bucket(self._rate, self._burst)
            if len(self._buckets) > MOST_PEERS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(peer)
        return bucket.wait_s(now)


class Seen:
    """The names of the deliveries that were taken last."""

    def __init__(self, most: int = MOST_SEEN) -> None:
        self._most = most
        self._names: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return _short(name) in self._names

    def add(self, name: str) -> None:
        self._names[_short(name)] = None
        if len(self._names) > self._most:
            self._names.popitem(last=False)


def _short(name: str) -> bytes:
    return hashlib.blake2b(name.encode(errors="replace"), digest_size=16).digest()


def peer_of(address: str) -> str:
    """Who counts as one: an IPv4 address, or an IPv6 network of 64 bits, of which whoever has one address has all."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return str(found)
