"""The contract of the MQTT session, against a real mosquitto: each way in which aiomqtt and paho lose messages is closed."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest

from gateway.config.model import Broker, MqttUplink
from protocols.contract import DriverError, Misfit, Refused, Unreachable
from protocols.mqtt import client as mqtt
from protocols.mqtt.client import MqttSession, Rejected, Will, connect
from protocols.tls import Tls
from tests.peers.certificates import Pki, make_pki
from tests.peers.mosquitto import Mosquitto, free_port
from tests.protocols.mqtt import hostile

DEADLINE_S = 10.0
Version = Literal["3.1.1", "5"]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """One for each test: they stop, freeze and kill it."""
    with Mosquitto(tmp_path / "broker") as running:
        yield running


def options(port: int, *, host: str = "127.0.0.1", **more: Any) -> MqttUplink:  # Any: fields of the Struct
    return MqttUplink(name="test", host=host, port=port, **{"timeout_s": 5.0, **more})


@asynccontextmanager
async def session(
    broker: Mosquitto, client_id: str = "one", *, will: Will | None = None, clean: bool = True, **more: Any
) -> AsyncIterator[MqttSession]:
    choice = options(broker.port, **more)
    async with (
        asyncio.timeout(DEADLINE_S),
        connect(choice, Broker(host=choice.host, port=choice.port), client_id=client_id, will=will, clean=clean) as opened,
    ):
        yield opened


async def collect(opened: MqttSession, count: int) -> list[bytes]:
    found: list[bytes] = []
    async for message in opened.messages():
        found.append(message.payload)
        if len(found) == count:
            break
    return found


Work = Callable[[MqttSession], Awaitable[None]]


async def wait_for_loss(one: MqttSession) -> None:
    await asyncio.wait([one.lost])
    await one.flushed()


def test_the_packages_are_the_ones_whose_insides_are_used() -> None:
    assert (version("aiomqtt"), version("paho-mqtt")) == ("2.5.1", "2.2.0")


# ---- the seven


async def test_a_negative_puback_is_never_success(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, acl="topic readwrite mine/#") as broker:
        async with session(broker) as one:
            await (await one.publish1("mine/a", b"x"))
            with pytest.raises(Rejected, match=r"publish to theirs/a was rejected: Not authorized \(0x87\).*access list") as caught:
                await (await one.publish1("theirs/a", b"x"))
            assert caught.value.reason == 0x87


async def test_each_connection_waits_for_its_own_connack(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, users={"gw": "old"}) as broker:
        async with session(broker, username="gw", password=Word("old")):
            pass
        broker.kill()
        broker.users = {"gw": "new"}
        broker.start()
        with pytest.raises(Refused, match=r"check its user name|check username and password"):
            async with session(broker, username="gw", password=Word("old")):
                pytest.fail("entered although the broker refused")


async def test_what_failed_is_not_sent_later(broker: Mosquitto) -> None:
    """Another connection of the same client does not carry what the first could not deliver: the journal decides that."""

    async def fail() -> None:
        async with session(broker, clean=False) as one:
            broker.freeze()
            answer = await one.publish1("a", b"stale")
            broker.kill()
            await answer

    with pytest.raises(Unreachable):
        await fail()
    broker.start()
    async with session(broker, "two") as other:
        await other.subscribe("a", 1)
        async with session(broker, clean=False) as again:
            await (await again.publish1("a", b"fresh"))
        assert await collect(other, 1) == [b"fresh"]


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_everybody_who_waits_is_woken_when_the_connection_is_lost(broker: Mosquitto, protocol: Version) -> None:
    async def first_message(one: MqttSession) -> None:
        await anext(aiter(one.messages()))

    async def scenario() -> None:
        async with session(broker, in_flight=1, protocol=protocol) as one:
            broker.freeze()
            unanswered = await one.publish1("a", b"1")
            for _ in range(50):
                one.publish0("a", bytes(1024 * 1024))
            waits: list[Awaitable[Any]] = [  # Any: whatever each would give
                unanswered,
                one.publish1("a", b"2"),
                one.flushed(),
                one.subscribe("b", 0),
                first_message(one),
                one.while_connected(asyncio.sleep(DEADLINE_S * 2)),
                asyncio.shield(one.lost),
            ]
            waiting = [asyncio.ensure_future(wait) for wait in waits]
            await asyncio.sleep(0)
            broker.kill()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(result) for result in results] == [Unreachable] * len(waits)
            with pytest.raises(Unreachable):
                one.publish0("a", b"")
            await one.publish1("a", b"3")

    with pytest.raises(Unreachable):
        await scenario()


async def test_no_acknowledged_message_is_lost_to_a_slow_reader(broker: Mosquitto) -> None:
    """Nobody reads while 500 arrive: a message is acknowledged only when it has been taken."""
    async with session(broker, "reader") as reader, session(broker, "writer") as writer:
        await reader.subscribe("a", 1)
        answers = [await writer.publish1("a", b"%d" % i) for i in range(500)]
        await asyncio.gather(*answers)
        assert await collect(reader, 500) == [b"%d" % i for i in range(500)]
        assert reader.overflowed == 0


async def test_the_order_is_kept_over_both_qos_and_nothing_stays_behind_a_goodbye(broker: Mosquitto) -> None:
    async with session(broker, "reader") as reader:
        await reader.subscribe("a", 1)
        async with session(broker, "writer") as writer:
            writer.publish0("a", b"0")
            writer.publish0("a", bytes(2 * mqtt.OUT_BYTES))
            await writer.publish1("a", b"1")
            writer.publish0("a", b"2")
            await writer.publish1("a", b"3")
            writer.publish0("a", b"4")
        assert await collect(reader, 6) == [b"0", bytes(2 * mqtt.OUT_BYTES), b"1", b"2", b"3", b"4"]


async def test_an_overflow_of_qos_0_is_counted(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "INBOX_MESSAGES", 5)
    async with session(broker, "reader") as reader, session(broker, "writer") as writer:
        await reader.subscribe("a", 0)
        for i in range(20):
            writer.publish0("a", b"%d" % i)
        await until(lambda: reader.overflowed == 15)
        assert await collect(reader, 5) == [b"%d" % i for i in range(5)]


async def test_the_servers_receive_maximum_is_respected(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, config="max_inflight_messages 3") as broker:
        async with session(broker, in_flight=100) as one:
            assert one.in_flight == 3
            broker.freeze()
            answers = [await one.publish1("a", b"") for _ in range(3)]
            fourth = asyncio.ensure_future(one.publish1("a", b""))
            await asyncio.wait([fourth], timeout=0.05)
            assert not fourth.done()
            broker.thaw()
            await asyncio.gather(*answers, await fourth)


async def test_thousands_in_flight_are_acknowledged_each_by_its_own_future(broker: Mosquitto) -> None:
    async with session(broker, in_flight=65535, protocol="3.1.1") as one:
        answers = [await one.publish1("a", b"") for _ in range(5000)]
        await asyncio.gather(*answers)
        assert not one._acks


async def test_work_ends_with_the_connection_and_a_connection_that_is_given_up_says_why(broker: Mosquitto) -> None:
    async with session(broker) as one:
        await one.while_connected(asyncio.sleep(0))
        with pytest.raises(ZeroDivisionError):
            await one.while_connected(divide())
        asyncio.get_running_loop().call_soon(one.abandon, Refused("enough"))
        with pytest.raises(Refused, match="enough"):
            await one.while_connected(asyncio.sleep(DEADLINE_S * 2))


async def divide() -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError


async def test_connections_leave_nothing_behind(broker: Mosquitto) -> None:
    """Entered and left, cancelled at every stage, refused: no descriptor and no task stays."""

    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks())

    async def stay() -> None:
        async with session(broker) as one:
            await one.publish1("a", b"")
            await asyncio.sleep(DEADLINE_S)

    before = held()
    for turns in range(40):
        task = asyncio.create_task(stay())
        for _ in range(turns):
            await asyncio.sleep(0.0005)
        task.cancel()
        await asyncio.wait([task])
    await until(lambda: held() == before)


# ---- silence, slowness, size


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_a_frozen_broker_is_noticed_within_the_keepalive(broker: Mosquitto, protocol: Version) -> None:
    """paho alone needs up to twice the keepalive."""

    async def wait() -> None:
        async with session(broker, keepalive_s=2, protocol=protocol) as one:
            broker.freeze()
            await wait_for_loss(one)

    with pytest.raises(Unreachable, match=r"silent for [23] s"):
        await wait()


async def test_a_living_broker_is_not_given_up(broker: Mosquitto) -> None:
    """Nothing is sent for twice the keepalive: pings alone keep the connection."""
    async with session(broker, keepalive_s=1) as one:
        await asyncio.wait([one.lost], timeout=2.2)
        await (await one.publish1("a", b""))


async def test_a_slow_link_holds_the_publisher_back(broker: Mosquitto) -> None:
    """What nobody takes does not pile up: ``flushed`` waits, and goes on when the broker does."""
    async with session(broker) as one:
        broker.freeze()
        sent = 0
        held = None
        while held is None and sent < 100_000:
            one.publish0("a", bytes(10_000))
            sent += 1
            waiting = asyncio.ensure_future(one.flushed())
            await asyncio.wait([waiting], timeout=0.05)
            held = None if waiting.done() else waiting
        assert held is not None
        assert sum(len(packet["packet"]) for packet in one._paho._out_packet) < mqtt.OUT_BYTES + 20_000
        broker.thaw()
        await held


async def test_a_ping_overtakes_what_waits(broker: Mosquitto) -> None:
    """Else a slow link full of data would look like a dead one."""
    async with session(broker) as one:
        broker.freeze()
        for _ in range(200):
            one.publish0("a", bytes(100_000))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        one._client.ping()
        ahead = [packet["command"] for packet in list(one._paho._out_packet)[:2]]
        assert 0xC0 in ahead
        broker.thaw()
        await one.flushed()


async def test_a_packet_above_the_servers_maximum_is_rejected_here(tmp_path: Path) -> None:
    """The broker would end the connection; nobody would learn which message it was."""
    with Mosquitto(tmp_path, config="max_packet_size 2000") as broker:
        async with session(broker) as one:
            assert one.max_packet_bytes == 2000
            with pytest.raises(Rejected, match="larger than the 2000") as caught:
                one.publish0("a", bytes(2000))
            assert caught.value.reason == 0x95
            with pytest.raises(Rejected, match="larger than the 2000"):
                await one.publish1("a", bytes(2000))
            await (await one.publish1("a", bytes(1900)))


async def test_packet_ids_that_wait_are_not_used_again(broker: Mosquitto) -> None:
    async with session(broker, protocol="3.1.1", in_flight=100) as one:
        broker.freeze()
        answers = [await one.publish1("a", b"") for _ in range(3)]
        one._paho._last_mid = 0
        answers.append(await one.publish1("a", b""))
        broker.thaw()
        await asyncio.gather(*answers)


# ---- wills, sessions, subscriptions


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@pytest.mark.parametrize("fails", [False, True])
async def test_the_will_is_published_unless_we_leave_in_peace(broker: Mosquitto, protocol: Version, fails: bool) -> None:
    async with session(broker, "watcher") as watcher:
        await watcher.subscribe("#", 1)
        with suppress(ZeroDivisionError):
            async with session(broker, will=Will("will", b"gone"), protocol=protocol) as one:
                await (await one.publish1("alive", b"yes"))
                if fails:
                    raise ZeroDivisionError
        await (await watcher.publish1("end", b"end"))
        expected = [b"yes", b"gone", b"end"] if fails else [b"yes", b"end"]
        assert sorted(await collect(watcher, len(expected))) == sorted(expected)


async def test_what_was_published_before_leaving_arrives(broker: Mosquitto) -> None:
    async with session(broker, "watcher") as watcher:
        await watcher.subscribe("a", 0)
        async with session(broker) as one:
            for i in range(100):
                one.publish0("a", b"%d" % i)
        assert await collect(watcher, 100) == [b"%d" % i for i in range(100)]


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_a_kept_session_is_told(broker: Mosquitto, protocol: Version) -> None:
    async with session(broker, clean=False, protocol=protocol) as one:
        assert not one.session_present
        await one.subscribe("a", 1)
    async with session(broker, "writer") as writer:
        await (await writer.publish1("a", b"meanwhile"))
    async with session(broker, clean=False, protocol=protocol) as one:
        assert one.session_present
        assert await collect(one, 1) == [b"meanwhile"]


async def test_retained_and_qos_are_told(broker: Mosquitto) -> None:
    async with session(broker) as one:
        await (await one.publish1("a", b"kept", retain=True))
        await one.subscribe("a", 1)
        message = await anext(aiter(one.messages()))
        assert (message.topic, message.payload, message.qos, message.retain) == ("a", b"kept", 1, True)


# ---- TLS


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_tls_1_3_with_client_certificates(tmp_path: Path, pki: Pki, protocol: Version) -> None:
    tls = Tls(ca_file=str(pki.ca_file), cert_file=str(pki.client.cert_file), key_file=str(pki.client.key_file))
    with Mosquitto(tmp_path, pki=pki, client_certificates=True) as broker:
        async with session(broker, host="localhost", tls=tls, protocol=protocol) as one:
            await one.subscribe("a", 1)
            large = bytes(3_000_000)
            await (await one.publish1("a", large))
            assert await collect(one, 1) == [large]
            assert one._paho._sock.version() == "TLSv1.3"  # type: ignore[union-attr] # an SSLSocket, which paho does not say


TLS_FAULTS: dict[str, tuple[type[DriverError], str]] = {
    "unknown authority": (Misfit, "authority is not in ca_file"),
    "wrong host name": (Misfit, "another host name"),
    "wrong address": (Misfit, "another IP address"),
    "expired": (Refused, "has expired"),
    "no client certificate": (DriverError, "client certificate"),  # mosquitto's alert may get lost when it hangs up
    "no TLS there": (Unreachable, "does this port speak TLS"),
    "TLS there but not here": (Unreachable, "does this port want TLS"),
}


@pytest.mark.parametrize("fault", TLS_FAULTS)
async def test_what_is_wrong_with_tls_is_said(tmp_path: Path, pki: Pki, fault: str) -> None:
    names = {"wrong host name": ("other.example",), "wrong address": ("10.1.2.3", "localhost")}.get(fault, ("localhost", "127.0.0.1"))
    server = make_pki(tmp_path / "other", server_names=names, server_expired=fault == "expired")
    trusted = pki if fault == "unknown authority" else server
    broker = Mosquitto(tmp_path / "broker", pki=None if fault == "no TLS there" else server)
    broker.client_certificates = fault == "no client certificate"
    host = "127.0.0.1" if fault == "wrong address" else "localhost"
    tls = None if fault == "TLS there but not here" else Tls(ca_file=str(trusted.ca_file))
    kind, text = TLS_FAULTS[fault]
    with broker, pytest.raises(kind, match=text):
        async with session(broker, host=host, tls=tls, timeout_s=2.0):
            pytest.fail("connected")


@contextmanager
def openssl(pki: Pki, *more: str) -> Iterator[int]:
    """``openssl s_server`` with the server's certificate, on a free port."""
    port = free_port()
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(pki.server.cert_file), "-key", str(pki.server.key_file)]
    process = subprocess.Popen([*command, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        while b"ACCEPT" not in process.stdout.readline():
            assert process.poll() is None
        yield port
    finally:
        process.kill()
        process.communicate()


async def test_a_broker_with_old_tls_only(pki: Pki) -> None:
    with openssl(pki, "-tls1_2") as port, pytest.raises(Misfit, match=r"tls\.min_version"):
        async with connect(options(port, tls=Tls(ca_file=str(pki.ca_file))), Broker(host="127.0.0.1", port=port), client_id="x"):
            pytest.fail("connected")


@pytest.mark.parametrize("case", ["none", "of another authority"])
async def test_a_client_certificate_that_the_peer_does_not_accept(tmp_path: Path, pki: Pki, case: str) -> None:
    """With TLS 1.3 the refusal comes after the handshake, as an alert."""
    other = make_pki(tmp_path / "other").client
    tls = Tls(ca_file=str(pki.ca_file))
    if case != "none":
        tls = Tls(ca_file=str(pki.ca_file), cert_file=str(other.cert_file), key_file=str(other.key_file))
    strict = ("-Verify", "1", "-verify_return_error", "-CAfile", str(pki.ca_file))
    with openssl(pki, *strict) as port, pytest.raises(Refused, match=r"tls\.cert_file"):
        async with connect(options(port, tls=tls), Broker(host="127.0.0.1", port=port), client_id="x"):
            pytest.fail("connected")


async def test_a_peer_that_answers_tls_with_something_else(pki: Pki) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP ready\r\n")

    error = await served(shout, tls=Tls(ca_file=str(pki.ca_file)))
    assert isinstance(error, Misfit)
    assert "does not speak TLS" in str(error)


async def test_the_name_to_expect_can_be_told(tmp_path: Path) -> None:
    pki = make_pki(tmp_path / "pki", server_names=("broker.plant.example",))
    with Mosquitto(tmp_path / "broker", pki=pki) as broker:
        async with session(broker, tls=Tls(ca_file=str(pki.ca_file), server_name="broker.plant.example")) as one:
            await (await one.publish1("a", b""))


# ---- peers that are none


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="check that the broker runs"):
        async with session(Mosquitto(tmp_path, port=free_port())):
            pass


async def test_a_name_that_does_not_resolve() -> None:
    choice = options(1883, host="no-such-host.invalid")
    with pytest.raises(Unreachable, match=r"does not resolve|no answer"):
        async with connect(choice, Broker(host=choice.host), client_id="x"):
            pass


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def served(answer: Serve, *, work: Work = wait_for_loss, **more: Any) -> DriverError | Rejected:
    """How a connection to a server that does ``answer`` ends, with a session that waits for messages."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await answer(reader, writer)
        await done.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        choice = options(port, **{"timeout_s": 0.5, "keepalive_s": 1, **more})
        async with asyncio.timeout(DEADLINE_S), connect(choice, Broker(host=choice.host, port=port), client_id="x") as one:
            await work(one)
    except (DriverError, Rejected) as error:
        return error
    finally:
        done.set()
        server.close()
        await server.wait_closed()
    raise AssertionError("no error")


async def test_a_peer_that_never_answers() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)

    error = await served(silent)
    assert isinstance(error, Unreachable)
    assert "no answer within 0.5 s" in str(error)


CONNACKS = {
    0x84: Misfit,
    0x85: Misfit,
    0x86: Refused,
    0x87: Refused,
    0x88: Unreachable,
    0x8A: Refused,
    0x9C: Refused,
    0x80: Unreachable,
}


@pytest.mark.parametrize("code", CONNACKS)
async def test_every_refusal_has_its_kind(code: int) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(bytes((0x20, 3, 0, code, 0)))

    error = await served(refuse)
    assert type(error) is CONNACKS[code]
    assert f"{code:#04x}" in str(error)


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5])
async def test_every_refusal_of_3_1_1_has_its_kind(code: int) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(bytes((0x20, 2, 0, code)))

    error = await served(refuse, protocol="3.1.1")
    assert type(error) is {1: Unreachable, 2: Misfit, 3: Unreachable, 4: Refused, 5: Refused}[code]


DISCONNECTS = {
    0x8E: (Refused, "same client id"),
    0x8B: (Unreachable, "shuts down"),
    0x95: (Misfit, "too large"),
    0x87: (Refused, "authorise"),
}


@pytest.mark.parametrize("code", DISCONNECTS)
async def test_the_servers_goodbye_is_explained(code: int) -> None:
    async def dismiss(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00" + bytes((0xE0, 1, code)))

    error = await served(dismiss)
    kind, text = DISCONNECTS[code]
    assert type(error) is kind
    assert text in str(error)


async def test_a_denied_subscription_is_rejected() -> None:
    async def deny(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00")
        await reader.read(1000)
        writer.write(b"\x90\x04\x00\x01\x00\x87")

    error = await served(deny, work=lambda one: one.subscribe("secret/#", 1))
    assert isinstance(error, Rejected)
    assert "subscribe to secret/# was rejected: Not authorized (0x87)" in str(error)


@pytest.mark.parametrize("reason", [0x80, 0x87, 0x95, 0x97, 0xB3, 0xFF])
async def test_no_reason_from_0x80_on_is_success_and_none_breaks_the_connection(reason: int) -> None:
    """mosquitto answers 0x95 to a message above its limit, which the standard's table for PUBACK does not have."""

    async def reject(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00")
        await reader.read(1000)
        writer.write(bytes((0x40, 3, 0, 1, reason)))
        await reader.read(1000)
        writer.write(bytes((0x40, 4, 0, 2, 0x10, 0)))

    async def publish(one: MqttSession) -> None:
        answer = await one.publish1("a", b"")
        await asyncio.wait([answer])
        await (await one.publish1("a", b""))
        await answer

    error = await served(reject, work=publish)
    assert isinstance(error, Rejected)
    assert error.reason == reason


async def test_a_broker_that_answers_pings_but_acknowledges_nothing_is_given_up() -> None:
    async def ping_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00")
        while await reader.read(1000):
            writer.write(b"\xd0\x00")

    async def publish(one: MqttSession) -> None:
        await (await one.publish1("a", b""))

    error = await served(ping_only, work=publish)
    assert isinstance(error, Unreachable)
    assert "acknowledged nothing" in str(error)


async def test_a_packet_that_claims_to_be_huge_is_not_read() -> None:
    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00" + b"\x30\xff\xff\xff\x7f" + bytes(1000))

    error = await served(lie)
    assert "sends a packet above" in str(error)


async def test_rubbish_from_the_peer_ends_in_one_of_the_three_errors() -> None:
    """Whole conversations with bytes changed, cut and added: nothing but a DriverError comes out, and nothing hangs."""
    chance = random.Random(7)
    good = (
        b"\x20\x09\x00\x00\x06\x21\x00\x14\x22\x00\x0a"
        + b"\x30\x07\x00\x01a\x00xyz"
        + b"\x32\x09\x00\x01a\x00\x07\x00xyz"
        + b"\x40\x02\x00\x05\xd0\x00\xe0\x01\x8b"
    )

    for _ in range(60):
        mutated = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            mutated[chance.randrange(len(mutated))] = chance.randrange(256)
        cut = bytes(mutated[: chance.randint(1, len(mutated))])

        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytes = cut) -> None:
            await reader.read(1000)
            writer.write(said)
            await writer.drain()
            writer.close()

        assert isinstance(await served(babble), DriverError)


# ----


class Word:
    """A secret reference for tests: the word itself."""

    def __init__(self, word: str) -> None:
        self._word = word

    def read(self) -> str:
        return self._word


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process brings about."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 # there is no event to wait for
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("size", [1, 7, 1000, 16 * 1024, 200_000])
@pytest.mark.parametrize("qos", [0, 1])
async def test_a_publish_that_is_too_long_arrives_without_its_payload_and_the_next_one_whole(size: int, qos: int) -> None:
    """However the stream is torn: nothing of the long one is taken for a packet, and it can be acknowledged."""
    head = b"\x00\x01a" + (b"\x00\x07" if qos else b"") + b"\0"
    long = hostile.packet(0x30 | qos << 1, head + b"\x30\x03\x00\x01b" * 20_000)
    stream = long + hostile.publish(b"c", b"d")
    fine = 60 if size < 1000 else len(stream)  # the ends of the stream are torn finely, its middle comes in one piece
    cuts = [*range(0, fine, size), *range(max(fine, len(stream) - fine), len(stream), size), len(stream)]
    told: asyncio.Queue[bytes] = asyncio.Queue()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hostile.greet((reader, writer))
        for begin, end in pairwise(cuts):
            writer.write(stream[begin:end])
            await writer.drain()
            await asyncio.sleep(0)
        told.put_nowait(await reader.read(4) if qos else b"")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    there = Broker(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    limits = mqtt.Listening(longest_payload=1000)
    async with asyncio.timeout(DEADLINE_S), connect(options(there.port), there, client_id="x", listening=limits) as one:
        await one.subscribe("#", 1)
        first, second = await one.receive(), await one.receive()
        one.acknowledge(first)
        assert (first.topic, first.payload, first.qos) == ("a", b"", qos)
        assert first.left_out == len(long) - 4
        assert (second.topic, second.payload, second.left_out) == ("c", b"d", 0)
        assert await told.get() == (b"\x40\x02\x00\x07" if qos else b"")
    server.close()
    await asyncio.sleep(0)


async def test_a_broker_that_takes_its_time_to_answer_a_subscription_is_waited_for() -> None:
    """Nothing was acknowledged before, and nothing had to be: only from the SUBSCRIBE on an answer is due."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hostile.connected((reader, writer))
        await asyncio.sleep(1.5)  # several looks of the keepalive's watch
        await hostile.subscribed((reader, writer), 1)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    there = Broker(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    async with asyncio.timeout(DEADLINE_S), connect(options(there.port, keepalive_s=5), there, client_id="x") as one:
        await one.subscribe("#", 1)
    server.close()
    await asyncio.sleep(0)
