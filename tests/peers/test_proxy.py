"""The proxy does to connections what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.peers.proxy import Proxy

PATIENCE_S = 5.0


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(4096):
        writer.write(chunk)
    writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    async with Proxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()


async def _through(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    await _exchange(reader, writer)
    return reader, writer


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(PATIENCE_S):
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"


async def test_bytes_pass_both_ways_and_are_counted(proxy: Proxy) -> None:
    _, writer = await _through(proxy)
    assert (proxy.up_bytes, proxy.down_bytes, proxy.connections) == (4, 4, 1)
    writer.close()


async def test_a_cut_says_goodbye_and_lets_new_connections_through(proxy: Proxy) -> None:
    reader, writer = await _through(proxy)
    await proxy.cut()
    assert await reader.read() == b""
    writer.close()
    _, writer = await _through(proxy)
    writer.close()


async def test_a_reset_does_not_say_goodbye(proxy: Proxy) -> None:
    reader, writer = await _through(proxy)
    await proxy.reset()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_a_black_hole_swallows_and_gives_back_when_it_heals(proxy: Proxy) -> None:
    reader, writer = await _through(proxy)
    proxy.black_hole()
    writer.write(b"lost?")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.05)
    await proxy.heal()
    async with asyncio.timeout(PATIENCE_S):
        assert await reader.readexactly(5) == b"lost?"
    writer.close()


async def test_a_new_connection_into_a_black_hole_is_taken_and_left_alone(proxy: Proxy) -> None:
    proxy.black_hole()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.05)
    writer.close()


async def test_refusing_breaks_connections_and_takes_no_new_ones_until_it_heals(proxy: Proxy) -> None:
    reader, writer = await _through(proxy)
    await proxy.refuse()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    await proxy.heal()
    _, writer = await _through(proxy)
    writer.close()


async def test_a_half_open_connection_passes_one_way(proxy: Proxy) -> None:
    """Up alive, down dead: the echo goes out and does not come back until it heals; the other way nothing goes out at all."""
    reader, writer = await _through(proxy)
    proxy.black_hole(up=False)
    writer.write(b"heard")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.05)
    assert proxy.up_bytes == 4 + len(b"heard")
    await proxy.heal()
    async with asyncio.timeout(PATIENCE_S):
        assert await reader.readexactly(5) == b"heard"
    proxy.black_hole(down=False)
    writer.write(b"unheard")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.05)
    assert proxy.up_bytes == 4 + len(b"heard")
    writer.close()


async def test_a_tear_lets_a_part_through_and_spares_the_next_connection(proxy: Proxy) -> None:
    reader, writer = await _through(proxy)
    proxy.tear(6)
    await _exchange(reader, writer)
    writer.write(b"ping")
    async with asyncio.timeout(PATIENCE_S):
        await reader.read()
    assert proxy.up_bytes == 4 + 6
    writer.close()
    _, writer = await _through(proxy)
    writer.close()
