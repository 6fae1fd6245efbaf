"""How often somebody may try to sign in: attempts are counted before they are judged, and each one too many doubles the wait.

Three counts, so that neither a guesser gets far nor a stranger can shut a user out: of a user from one address (few), of an
address (more: people share one), and of a user from anywhere (many, and a short wait: whoever owns many addresses guesses a
thousand times a day and no more, and the user still gets in). A name that nobody has is counted like any other.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from gateway.objections import TooMany
from protocols.clock import Clock

FORGET_S: Final = 3600.0
"""A count that nobody adds to is forgotten."""
MOST_KEPT: Final = 20_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """``free`` attempts, then a wait of one second that doubles up to ``longest_s``."""

    free: int
    longest_s: float


PAIR: Final = Allowance(5, 900.0)
ADDRESS: Final = Allowance(20, 900.0)
USER: Final = Allowance(50, 60.0)


@dataclass(slots=True)
class _Count:
    failures: int = 0
    until: float = 0.0
    last: float = 0.0


class Attempts:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[tuple[str, str], _Count] = {}

    def take(self, name: str, address: str) -> bool:
        """Count an attempt that is about to be made; whether it is the one by which somebody is locked out. Raises TooMany."""
        now = self._clock.monotonic()
        counts = [(self._count(key, now), allowance) for key, allowance in _keys(name, address)]
        wait = max(count.until for count, _ in counts) - now
        if wait > 0:
            raise TooMany("too many attempts to sign in", "wait, or ask an administrator to unlock you", retry_after_s=wait)
        return any([_add(count, allowance, now) for count, allowance in counts])

    def succeeded(self, name: str, address: str) -> None:
        """The attempt was right: the user's counts begin anew. The address's do not: who has one account could guess others'."""
        for key in (("user", name), ("pair", f"{name} {place(address)}")):
            self._counts.pop(key, None)
        count = self._counts.get(("address", place(address)))
        if count is not None:
            count.failures = max(0, count.failures - 1)

    def unlock(self, name: str) -> None:
        """Forget what was counted of ``name``, from wherever."""
        self._counts = {key: count for key, count in self._counts.items() if not _is_of(key, name)}

    def locked(self, name: str) -> bool:
        """Whether ``name`` waits, from wherever it comes."""
        now = self._clock.monotonic()
        return any(count.until > now for key, count in self._counts.items() if _is_of(key, name))

    def _count(self, key: tuple[str, str], now: float) -> _Count:
        count = self._counts.get(key)
        if count is None or now - max(count.last, count.until) > FORGET_S:
            self._make_room()
            count = self._counts[key] = _Count()
        return count

    def _make_room(self) -> None:
        if len(self._counts) >= MOST_KEPT:  # those with the least to lose go first
            kept = sorted(self._counts.items(), key=lambda each: (each[1].failures, each[1].last))
            self._counts = dict(kept[MOST_KEPT // 10 :])


def place(address: str) -> str:
    """The address, or of IPv6 the network of 64 bits: whoever has one address of it has all."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:  # how a socket for both calls an address of IPv4
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((int(ip), 64), strict=False))


def _keys(name: str, address: str) -> list[tuple[tuple[str, str], Allowance]]:
    where = place(address)
    return [(("pair", f"{name} {where}"), PAIR), (("address", where), ADDRESS), (("user", name), USER)]


def _is_of(key: tuple[str, str], name: str) -> bool:
    return key == ("user", name) or (key[0] == "pair" and key[1].rpartition(" ")[0] == name)


def _add(count: _Count, allowance: Allowance, now: float) -> bool:
    count.failures += 1
    count.last = now
    over = count.failures - allowance.free
    if over >= 0:
        count.until = now + min(allowance.longest_s, 2.0 ** min(over, 30))
    return over == 0
