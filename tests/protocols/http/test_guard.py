"""To whom we connect: each address by its kind, each spelling, and names that lead elsewhere, at the moment of connecting."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

import aiohttp
import pytest

from protocols.http.guard import Forbidden, Guard, connector
from tests.peers.http_hostile import HostileServer

NEVER: Final = (
    "169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "168.63.129.16",
    "::ffff:169.254.169.254",
    "0.0.0.0", "::", "0.1.2.3",
    "224.0.0.1", "255.255.255.255", "ff02::1", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "localhost", "", "1.2.3",
)  # fmt: skip
LOCAL: Final = (
    "127.0.0.1",
    "127.8.9.10",
    "::1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "169.254.7.7",
    "fe80::1%eth0",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
)
PRIVATE: Final = ("10.0.0.1", "172.16.3.4", "192.168.10.20", "fd12::1", "100.64.0.1", "::ffff:10.0.0.1")
PUBLIC: Final = ("93.184.216.34", "2606:2800:220:1::1")


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_never_connected_to(address: str) -> None:
    assert Guard(allow_local=True).problem(address)


@pytest.mark.parametrize("address", LOCAL)
def test_a_way_back_into_the_machine_needs_a_word_of_the_document(address: str) -> None:
    assert "allow_local" in Guard().problem(address)
    assert Guard(allow_local=True).problem(address) == ""


@pytest.mark.parametrize("address", PRIVATE)
def test_private_networks_are_what_plants_are_made_of(address: str) -> None:
    assert Guard().problem(address) == ""
    assert Guard(allow_private=False).problem(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_free(address: str) -> None:
    assert Guard(allow_private=False).problem(address) == ""


def test_the_machines_own_address_is_a_way_back_too() -> None:
    """A connection to our own address on the network is one to ourselves, though it is neither loopback nor link-local."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no network, so no address of its own")
        own = probe.getsockname()[0]
    wanted = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (own, 80))
    with pytest.raises(Forbidden, match="own address"):
        Guard().socket(wanted)
    Guard(allow_local=True).socket(wanted).close()


class Rebinding(aiohttp.abc.AbstractResolver):
    """A name that leads to a public address when it is looked up, and to loopback the next time."""

    def __init__(self) -> None:
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[Any]:  # Any: aiohttp's
        self.asked += 1
        address = "127.0.0.1"
        return [{"hostname": host, "host": address, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{}/", "http://localhost:{}/", "http://[::ffff:127.0.0.1]:{}/", "http://device.example.com:{}/"]
)
async def test_nothing_is_sent_to_a_forbidden_address_however_it_is_written(url: str) -> None:
    """The server behind it sees no connection at all."""
    async with HostileServer("never-answer") as peer:
        guarded = connector(Guard(), tls=None, at_once=2, keep_alive=True)
        if "device" in url:
            guarded._resolver = Rebinding()  # the resolver of a name server that lies
        async with aiohttp.ClientSession(connector=guarded) as session, asyncio.timeout(10):
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await session.get(url.format(peer.port))
        assert isinstance(caught.value.os_error, Forbidden)
        assert peer.visits == 0


@pytest.mark.parametrize("url", ["http://2130706433/", "http://0x7f.1/", "http://127.1/", "http://0177.0.0.1/", "http://0/"])
async def test_odd_spellings_of_loopback_end_at_the_same_place(url: str) -> None:
    async with aiohttp.ClientSession(connector=connector(Guard(), tls=None, at_once=2, keep_alive=True)) as session, asyncio.timeout(10):
        with pytest.raises((aiohttp.ClientConnectorError, aiohttp.InvalidURL)):
            await session.get(url)


async def test_no_other_scheme_is_spoken() -> None:
    async with aiohttp.ClientSession(connector=connector(Guard(), tls=None, at_once=2, keep_alive=True)) as session:
        for url in ("file:///etc/passwd", "ftp://192.0.2.1/", "gopher://192.0.2.1/", "unix:///run/x"):
            with pytest.raises((aiohttp.ClientError, ValueError)):
                await session.get(url)
