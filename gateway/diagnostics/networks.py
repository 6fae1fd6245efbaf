"""Which networks may be scanned: private ones that this machine has an address in, and never the machine itself.

A scan of addresses that anybody may name is a way to reach what only this machine can reach: services on its loopback, the metadata of
a cloud (169.254.169.254), somebody else's network. So a range must lie within a private IPv4 network of one of its own interfaces.
Addresses are given as numbers: no name is looked up, so that nothing can be answered differently the second time.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final

from gateway.objections import NotAllowed, Unfit

MOST_HOSTS: Final = 1024
_ADDRESS: Final = 0x8915
_MASK: Final = 0x891B
"""SIOCGIFADDR and SIOCGIFNETMASK, netdevice(7)."""
_PRIVATE: Final = tuple(ipaddress.IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))

Network = ipaddress.IPv4Network


def own_networks() -> list[Network]:
    """The IPv4 networks of this machine's interfaces that may be scanned."""
    return [each.network for each in _interfaces() if any(each.network.subnet_of(private) for private in _PRIVATE)]


def _interfaces() -> Iterator[ipaddress.IPv4Interface]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                address, mask = (fcntl.ioctl(asking.fileno(), what, request)[20:24] for what in (_ADDRESS, _MASK))
            except OSError:  # it has no IPv4 address
                continue
            yield ipaddress.IPv4Interface((address, bin(int.from_bytes(mask, "big")).count("1")))


def hosts(text: str, own: Sequence[Network]) -> list[str]:
    """The addresses of the range ``text`` (CIDR). Raises Unfit where it is none, or too large; NotAllowed where it is not ours."""
    try:
        wanted = ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        raise Unfit("network is no range of IPv4 addresses", "write it as 192.168.1.0/28") from None
    if wanted.num_addresses > MOST_HOSTS:
        raise Unfit(f"{wanted} has {wanted.num_addresses} addresses, more than {MOST_HOSTS}", "scan a part of it")
    if not any(wanted.subnet_of(each) for each in own):
        ours = ", ".join(map(str, own)) or "none"
        raise NotAllowed(f"{wanted} is no part of a private network that this gateway has an address in", f"its networks: {ours}")
    return [str(each) for each in (wanted.hosts() if wanted.num_addresses > 2 else wanted)]
