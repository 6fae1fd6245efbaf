"""Client and server against libcoap's: observing, separate answers, bodies in blocks both ways, TCP, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from protocols.clock import SystemClock
from protocols.coap.config import Coap
from protocols.coap.driver import CLIENT
from protocols.coap.server import SERVER
from protocols.coap.server_config import CoapServer
from protocols.contract import Session, Unreachable
from protocols.model import Command, OutcomeState, Quality
from tests.contract.driver_suite import PATIENCE_S, Seen
from tests.peers.coap import CoapDevices, LibcoapServer, coap_client, free_port

CLOCK = SystemClock()
LONG = "".join(chr(97 + at % 26) for at in range(5000))


def client(port: int, *resources: dict[str, Any], **more: Any) -> Coap:  # Any: JSON
    device = {"name": "one", "host": "127.0.0.1", "port": port, "scan_s": 0.2, "resources": list(resources), **more.pop("device", {})}
    document = {"type": "coap", "name": "line", "timeout_s": 3, "ack_timeout_s": 0.3, "retry_max_s": 1, "devices": [device], **more}
    return msgspec.convert(document, Coap)


def text(path: str, name: str, **more: Any) -> dict[str, Any]:  # Any: JSON
    tag = {"name": name, "kind": more.pop("kind", "string"), "writable": more.pop("writable", False)}
    return {"path": path, "tags": [tag], **more}


class Reader:
    """Reads a session in a task of its own, and can be waited with."""

    def __init__(self, session: Session) -> None:
        self.session, self.seen = session, Seen()
        self.task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        async for batch in self.session.batches():
            self.seen.take(batch)

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not what():
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.01)

    def value(self, tag: str, device: str = "one") -> Any:  # Any: what the columns hold
        return self.seen.good(device, tag)


@asynccontextmanager
async def reading(driver: Any, options: Any) -> AsyncIterator[Reader]:  # Any: one of the two drivers, and its options
    async with driver.open(options, clock=CLOCK) as session:
        reader = Reader(session)
        try:
            yield reader
        finally:
            reader.task.cancel()
            await asyncio.gather(reader.task, return_exceptions=True)


def command(tag: str, value: Any) -> Command:  # Any: as Command has it
    return Command(id="1", device="one", tag=tag, value=value, deadline_ns=CLOCK.time_ns() + 10**10)


@pytest.fixture
async def libcoap() -> AsyncIterator[LibcoapServer]:
    async with LibcoapServer() as server:
        yield server


@pytest.mark.parametrize("scheme", ["coap", "coap+tcp"])
async def test_libcoap_is_read_observed_and_written(libcoap: LibcoapServer, scheme: str) -> None:
    options = client(
        libcoap.port,
        text("/time", "clock"),
        text("/", "title", mode="observe"),
        text("/example_data", "data", mode="poll", writable=True),
        text("/nowhere", "nothing", mode="poll"),
        device={"scheme": scheme},
    )
    async with reading(CLIENT, options) as reader:
        await reader.until(
            lambda: all(reader.value(tag) for tag in ("clock", "title", "data")) and ("one", "nothing") in reader.seen.qualities
        )
        assert reader.seen.qualities["one", "nothing"] is Quality.BAD_NODE_ID_UNKNOWN
        assert len(reader.value("data")) > 1024, "it came in blocks"
        first, asked = reader.value("clock"), reader.session.stats.requests
        await reader.until(lambda: reader.value("clock") not in (None, first))
        (outcome,) = await reader.session.write([command("data", LONG)])
        assert (outcome.state, outcome.read_back) == (OutcomeState.VERIFIED, LONG)
        await reader.until(lambda: reader.value("data") == LONG)
        assert asked < reader.session.stats.requests
        said = " ".join(reader.session.findings)
        assert "/: cannot be observed" in said
        assert "/nowhere: the device answers 4.04 Not Found" in said
        assert "clock" not in said


async def test_an_observed_value_is_pushed_not_asked_for(libcoap: LibcoapServer) -> None:
    async with reading(CLIENT, client(libcoap.port, text("/time", "clock"))) as reader:
        seen: set[str] = set()

        def enough() -> bool:
            seen.add(reader.value("clock") or "")
            return len(seen - {""}) >= 3

        await reader.until(enough)
        assert reader.session.stats.requests == 1


async def test_blocks_are_as_small_as_the_device_wants_them(libcoap: LibcoapServer) -> None:
    options = client(libcoap.port, text("/example_data", "data", mode="poll", writable=True), device={"block_size": 64})
    async with reading(CLIENT, options) as reader:
        await reader.until(lambda: reader.value("data") is not None)
        assert reader.session.stats.requests > 1400 // 64
        (outcome,) = await reader.session.write([command("data", LONG[:300])])
        assert outcome.state is OutcomeState.VERIFIED


async def test_an_answer_that_comes_later_by_itself_is_taken(libcoap: LibcoapServer) -> None:
    """A separate response (RFC 7252, 5.2.2)."""
    async with reading(CLIENT, client(libcoap.port, text("/async", "late", mode="poll", query=["1"]))) as reader:
        await reader.until(lambda: reader.value("late") == "done")


async def test_a_body_longer_than_max_bytes_is_given_up(libcoap: LibcoapServer) -> None:
    async with reading(CLIENT, client(libcoap.port, text("/example_data", "data", mode="poll", max_bytes=1100))) as reader:
        await reader.until(lambda: reader.seen.qualities.get(("one", "data")) is Quality.BAD_OUT_OF_RANGE)


async def test_what_libcoap_offers_is_browsed(libcoap: LibcoapServer) -> None:
    offers = [offer async for offer in CLIENT.browse(client(libcoap.port, timeout_s=0.5), start="", limit=10)]
    found = {offer.at: offer for offer in offers}
    assert {"/", "/time", "/async", "/example_data"} <= set(found)
    assert found["/time"].value
    assert "observable" in found["/time"].description


async def test_lossy_air_costs_repetitions_and_no_values() -> None:
    port = free_port()
    options = client(port, text("/", "title", mode="poll"), timeout_s=10)
    async with LibcoapServer(port, "-l", "30%"), reading(CLIENT, options) as reader:
        await reader.until(lambda: reader.seen.batches.get("one", 0) >= 4)
        assert reader.value("title")
        assert reader.session.stats.errors.get("timeout", 0) == 0


async def test_an_observed_device_that_dies_is_uncertain_then_lost_then_gone() -> None:
    port = free_port()
    with CoapDevices({"one": {"port": port, "scheme": "coap"}}) as peer:
        peer.set("one", "/level", b"7")
        peer.ask("age one /level 1")
        options = client(port, text("/level", "level", kind="int32", refresh_s=1.0), timeout_s=0.5, ack_timeout_s=0.2)
        async with reading(CLIENT, options) as reader:
            await reader.until(lambda: reader.value("level") == 7 and peer.observers("one", "/level") == 1)
            peer.set("one", "/level", b"8")
            await reader.until(lambda: reader.value("level") == 8)
            peer.silent("one", True)
            key = ("one", "level")
            await reader.until(lambda: reader.seen.qualities[key] is Quality.UNCERTAIN_LAST_USABLE_VALUE)
            assert reader.seen.values[key] == 8
            with pytest.raises(Unreachable):
                await reader.until(lambda: False)
            assert "one" in reader.seen.lost
            assert reader.seen.qualities[key].is_bad


async def test_whoever_closes_says_goodbye() -> None:
    port = free_port()
    with CoapDevices({"one": {"port": port, "scheme": "coap"}}) as peer:
        peer.set("one", "/level", b"7")
        async with reading(CLIENT, client(port, text("/level", "level", kind="int32"))) as reader:
            await reader.until(lambda: peer.observers("one", "/level") == 1)
        async with asyncio.timeout(PATIENCE_S):
            while peer.observers("one", "/level"):  # noqa: ASYNC110 # the state is another process's
                await asyncio.sleep(0.01)


# ------------------------------------------------------------------------------------------------------------- pushing


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text("c0ffee")
    return file


def server(token: Path, **more: Any) -> CoapServer:  # Any: JSON
    tags = [{"name": "level", "kind": "float64", "at": "$.level"}, {"name": "note", "kind": "string", "at": "$.note"}]
    one = {"name": "one", "path": "/one", "resources": [{"path": "/state", "format": "json", "missing": "keep", "tags": tags}]}
    two = {"name": "two", "path": "/two", "token": {"from": "file", "path": str(token)}}
    document = {"type": "coap-server", "name": "line", "listen_port": free_port(), "schemes": ["coap", "coap+tcp"], **more}
    document["devices"] = [one | more.get("device", {}), two | {"resources": [text("/level", "level", kind="float64")]}]
    document.pop("device", None)
    return msgspec.convert(document, CoapServer)


@pytest.mark.parametrize("scheme", ["coap", "coap+tcp"])
async def test_what_libcoap_pushes_arrives_before_it_is_told_yes(token: Path, scheme: str) -> None:
    options = server(token)
    url = f"{scheme}://127.0.0.1:{options.listen_port}"
    async with reading(SERVER, options) as reader:
        said = await coap_client(f"{url}/one/state", "-m", "post", "-t", "50", content=b'{"level": 3.75}')
        assert "2.04" in said
        assert reader.value("level") == 3.75
        body = ('{"note": "' + LONG + '"}').encode()
        said = await coap_client(f"{url}/one/state", "-m", "put", "-t", "50", "-b", "256", content=body)
        assert "2.04" in said
        assert reader.value("note") == LONG
        assert "2.04" in await coap_client(f"{url}/two/level?token=c0ffee", "-m", "post", content=b"5.5")
        assert reader.value("level", "two") == 5.5


async def test_what_is_not_configured_is_refused_and_told_once(token: Path) -> None:
    options = server(token)
    url = f"coap://127.0.0.1:{options.listen_port}"
    async with reading(SERVER, options) as reader:
        for _ in range(2):
            assert "4.04" in await coap_client(f"{url}/three/level", "-m", "post", content=b"1")
        assert "4.01" in await coap_client(f"{url}/two/level?token=guess", "-m", "post", content=b"1")
        assert "4.01" in await coap_client(f"{url}/two/level", "-m", "post", content=b"1")
        assert "4.05" in await coap_client(f"{url}/one/state")
        assert "4.04" in await coap_client(f"{url}/.well-known/core")
        assert "4.00" in await coap_client(f"{url}/one/state", "-m", "post", content=b"{no json")
        assert reader.seen.qualities["one", "level"] is Quality.BAD_DECODING_ERROR
        said = list(reader.session.findings)
        assert len([one for one in said if "not configured" in one]) == 1
        assert "c0ffee" not in " ".join(said)
        assert ("two", "level") not in reader.seen.values


async def test_unconfirmable_messages_and_repetitions_are_taken_once(token: Path) -> None:
    options = server(token)
    async with reading(SERVER, options) as reader:
        said = await coap_client(
            f"coap://127.0.0.1:{options.listen_port}/one/state", "-N", "-m", "post", "-t", "50", content=b'{"level": 9}'
        )
        assert "2.04" in said
        before = reader.seen.batches["one"]
        loop = asyncio.get_running_loop()
        answers: list[bytes] = []

        class Ear(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:  # Any: as asyncio says
                answers.append(data)

        transport, _ = await loop.create_datagram_endpoint(Ear, remote_addr=("127.0.0.1", options.listen_port))
        push = bytes.fromhex("41020007aa b36f6e65 057374617465 1132 ff".replace(" ", "")) + b'{"level": 10}'
        for _ in range(3):
            transport.sendto(push)
        await reader.until(lambda: len(answers) >= 1 and reader.value("level") == 10)
        transport.sendto(push)
        await reader.until(lambda: len(answers) >= 2)
        transport.close()
        assert set(answers) == {bytes.fromhex("61440007aa")}
        assert reader.seen.batches["one"] == before + 1


async def test_who_sends_too_often_is_not_answered(token: Path) -> None:
    options = server(token, rate_per_s=0.1, burst=2)
    url = f"coap://127.0.0.1:{options.listen_port}/one/state"
    async with reading(SERVER, options) as reader:
        for _ in range(2):
            assert "2.04" in await coap_client(url, "-m", "post", "-t", "50", content=b'{"level": 1}')
        said = await coap_client(url, "-m", "post", "-t", "50", content=b'{"level": 2}', wait_s=1.0)
        assert "t:ACK" not in said
        assert reader.value("level") == 1
        assert "rate_per_s" in " ".join(reader.session.findings)


async def test_a_device_that_pushes_no_more_is_lost_and_back_with_its_next_push(token: Path) -> None:
    options = server(token, device={"silence_s": 0.5})
    url = f"coap://127.0.0.1:{options.listen_port}/one/state"
    async with reading(SERVER, options) as reader:
        for level in (1, 2):
            push = coap_client(url, "-m", "post", "-t", "50", content=b'{"level": %d}' % level)
            await asyncio.gather(push, reader.until(lambda level=level: reader.value("level") == level))  # type: ignore[misc] # bound at once
            await reader.until(lambda: reader.seen.qualities["one", "level"].is_bad)
        assert "one" in reader.seen.lost


async def test_nothing_is_said_yes_to_that_nobody_takes(token: Path) -> None:
    """A session that is open and not read: 5.03, so that the device keeps its reading."""
    options = server(token)
    async with SERVER.open(options, clock=CLOCK):
        url = f"coap://127.0.0.1:{options.listen_port}/one/state"
        assert "5.03" in await coap_client(url, "-m", "post", "-t", "50", content=b'{"level": 1}')


@pytest.mark.parametrize("scheme", ["coap", "coap+tcp"])
def test_it_is_the_same_in_the_gateway_s_event_loop(token: Path, scheme: str) -> None:
    """uvloop's transports are not asyncio's."""

    async def story() -> None:
        async with LibcoapServer() as libcoap:
            resources = (text("/time", "clock"), text("/example_data", "data", mode="poll", writable=True))
            async with reading(CLIENT, client(libcoap.port, *resources, device={"scheme": scheme})) as reader:
                await reader.until(lambda: bool(reader.value("clock") and reader.value("data")))
                (outcome,) = await reader.session.write([command("data", LONG)])
                assert outcome.state is OutcomeState.VERIFIED
                await libcoap.stop()
                with pytest.raises(Unreachable):
                    await reader.until(lambda: False)
        options = server(token)
        for _ in range(2):  # it leaves its ports free
            async with reading(SERVER, options) as reader:
                url = f"{scheme}://127.0.0.1:{options.listen_port}/one/state"
                assert "2.04" in await coap_client(url, "-m", "post", "-t", "50", content=b'{"level": 3.75}')
                assert reader.value("level") == 3.75

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())
