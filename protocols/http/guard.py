"""To whom we connect over HTTP: judged by the address, at the moment of connecting, whatever name led there.

A host that a person wrote into the site document is wanted, in a private network too: plants are such networks. What is
refused is a way back into the gateway or its cloud host: loopback, link-local, the machine's own addresses, unless the
document allows them for this connection; and the metadata services of clouds, always. Because the socket's own address
is judged, a name that resolves to something else the second time (DNS rebinding), an odd spelling (``0x7f.1``), an
IPv4 address inside an IPv6 one and a redirect all end at the same place.

For every client that is told where to go by a document or a peer: :func:`connector` gives aiohttp's connector.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
from typing import Any, Final

import msgspec
from aiohttp import TCPConnector, ThreadedResolver

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)
"""Where clouds tell a machine its secrets (AWS, Google, Azure, Oracle; AWS tasks; AWS over IPv6; Alibaba; Azure; Oracle)."""
AT_ONCE: Final = 16 * 1024
"""Bytes (the kernel doubles it) that a peer can have waiting for us. What comes at once is parsed at once: a flood of the smallest chunks
costs the loop 0.7 us a byte."""
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_THIS_HOST: Final = ipaddress.ip_network("0.0.0.0/8")


class Forbidden(OSError):
    """We do not connect to this address. The text says which, why and what to do."""


class Guard(msgspec.Struct, frozen=True):
    """Which addresses may be connected to."""

    allow_local: bool = False
    """Whether loopback, link-local and the machine's own addresses may be."""
    allow_private: bool = True
    """Whether private networks (RFC 1918, RFC 4193, RFC 6598) may be."""

    def problem(self, text: str) -> str:
        """Why ``text`` (an IP address as a socket has it, with or without a zone) may not be connected to; empty where it may."""
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return f"{text[:60]!r} is no IP address"
        return next((why for each in _meant(address) if (why := self._problem(each))), "")

    def _problem(self, address: Address) -> str:
        if address in METADATA:
            return f"{address} tells secrets of the machine (a cloud's metadata service): it is never asked"
        if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255" or address in _THIS_HOST:
            return f"{address} is nobody's address"
        if not self.allow_local and (address.is_loopback or address.is_link_local):
            what = "loopback" if address.is_loopback else "link-local"
            return f"{address} is {what}: write allow_local: true if that is meant"
        if not self.allow_private and not address.is_global:
            return f"{address} is not a public address"
        return ""

    def socket(self, wanted: tuple[Any, ...]) -> socket.socket:  # Any: what getaddrinfo gives
        """A socket for ``wanted`` (as getaddrinfo has it), about to be connected there. Raises Forbidden.

        This is the last moment before the address is used, and no name is looked up again after it.
        """
        family, kind, protocol, _, place = wanted
        problem = self.problem(str(place[0])) or ("" if self.allow_local else _own(family, place))
        if problem:
            raise Forbidden(problem)
        made = socket.socket(family=family, type=kind, proto=protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, AT_ONCE)
        return made


def _meant(address: Address) -> list[Address]:
    """``address``, and the IPv4 addresses that it stands for: mapped, compatible, NAT64, 6to4, Teredo."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    found: list[Address] = [address]
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or (int(address) >> 32 == 0 and int(address) > 1):
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found + [each for each in inner if each is not None]


def _own(family: int, place: tuple[Any, ...]) -> str:  # Any: a socket address
    """Why ``place`` is the gateway itself; empty where it is not. A UDP socket that is connected sends nothing."""
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:  # where no way leads, connecting says so
        probe.connect((place[0], 9, *place[2:]))
        if probe.getsockname()[0] == place[0]:
            return f"{place[0]} is this machine's own address: write allow_local: true if that is meant"
    return ""


def connector(guard: Guard, *, tls: ssl.SSLContext | None, at_once: int, keep_alive: bool) -> TCPConnector:
    """aiohttp's connector that asks ``guard`` before each connection. ``tls`` is what ``https`` is verified by.

    Made inside a running event loop; whoever made it closes it, or its ClientSession does.
    """
    return TCPConnector(
        limit=at_once,
        ssl=tls if tls is not None else True,
        resolver=ThreadedResolver(),  # the system's: /etc/hosts and mDNS names of plants are known there
        use_dns_cache=False,
        socket_factory=guard.socket,
        force_close=not keep_alive,
    )
