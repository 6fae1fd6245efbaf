"""The brokers of the scenario, looked at from outside: who gets in, who may do what, and what stays after a restart.

Runs at the controller's end of the site (``tools/machines.py run broker ...``), with clients that others wrote: openssl, mosquitto's and
paho. Each refusal has its counterpart that works, so that none of them is green because nothing is there.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import queue
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.peers.certificates import make_pki

ROOT: Final = Path(__file__).parents[2]
SITE: Final = ROOT / "build/machines/sites/broker"
CLIENTS: Final = SITE / "clients"
TRUSTED: Final = CLIENTS / "trusted.pem"
PORT: Final = 8883
PATIENCE_S: Final = 60.0
NOT_AUTHORIZED: Final = 0x87
UUID: Final = {letter: f"0{letter}5b2a86-3c8b-4dc1-9b7e-0d8f5f0a1c0{letter}" for letter in "abcd"}
BROKERS: Final = {"brk-12": ("10.77.0.12", "fd77::c"), "brk-13": ("10.77.0.13", "fd77::d")}
BELOW: Final = BROKERS["brk-12"][0]
ABOVE: Final = BROKERS["brk-13"][0]


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> str:
    """Each of them in turn."""
    return str(request.param)


def on(broker: str, *words: str) -> str:
    """What a command says that runs on the broker's host."""
    done = subprocess.run((ROOT / "tools/machines.py", "exec", "broker", broker, *words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Client:
    """An MQTT 5 client with the certificate in ``pair``; ``with Client(...) as client`` is connected, or says why not."""

    def __init__(
        self, host: str, pair: Path | None, *, client_id: str = "", expiry_s: int = 0, protocol: MQTTProtocolVersion = paho.MQTTv5
    ) -> None:
        self.inbox: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.reasons: dict[int, int] = {}
        self.gone: list[str] = []
        self.largest: int | None = None
        self._granted: queue.Queue[int] = queue.Queue()
        self._connected: queue.Queue[str] = queue.Queue()
        self._five = protocol == paho.MQTTv5
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol, reconnect_on_failure=False)
        context = ssl.create_default_context(cafile=str(TRUSTED))
        if pair is not None:
            context.load_cert_chain(pair)
        self._client.tls_set_context(context)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = lambda _c, _u, message: self.inbox.put((message.topic, bytes(message.payload)))
        self._client.on_publish = lambda _c, _u, number, reason, _p: self.reasons.__setitem__(number, reason.value)
        self._client.on_subscribe = lambda _c, _u, _n, reasons, _p: self._granted.put(max(each.value for each in reasons))
        self._where, self._expiry_s = host, expiry_s

    def __enter__(self) -> Self:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
        properties.SessionExpiryInterval = self._expiry_s
        more: dict[str, Any] = {"clean_start": self._expiry_s == 0, "properties": properties} if self._five else {}  # Any: paho's words
        try:
            self._client.connect(self._where, PORT, keepalive=30, **more)
            self._client.loop_start()
            said = self._connected.get(timeout=PATIENCE_S)
        except OSError as error:
            raise Rejected(str(error)) from error
        if said != "Success":
            self.__exit__()
            raise Rejected(said)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, _client: object, _data: object, _flags: object, reason: object, properties: Any) -> None:  # Any: paho's bag
        self.largest = getattr(properties, "MaximumPacketSize", None)
        self._connected.put(str(reason))

    def _on_disconnect(self, _client: object, _data: object, _flags: object, reason: object, _properties: object) -> None:
        self.gone.append(str(reason))
        self._connected.put(str(reason))

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> int:
        """The reason with which the broker acknowledges it."""
        sent = self._client.publish(topic, payload, 1, retain)
        sent.wait_for_publish(PATIENCE_S)
        return self.reasons[sent.mid]

    def throw(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, 1)

    def subscribe(self, *filters: str) -> int:
        self._client.subscribe([(each, SubscribeOptions(1)) for each in filters])
        return self._granted.get(timeout=PATIENCE_S)

    def next(self) -> tuple[str, bytes]:
        return self.inbox.get(timeout=PATIENCE_S)


class Rejected(Exception):
    """The broker did not let the client in."""


def pair(name: str) -> Path:
    return CLIENTS / f"{name}.pem"


def knows(host: str, words: list[str]) -> str:
    """What openssl says of a handshake."""
    asked = ["openssl", "s_client", "-connect", f"[{host}]:{PORT}" if ":" in host else f"{host}:{PORT}", "-CAfile", str(TRUSTED), *words]
    return subprocess.run(asked, input="", capture_output=True, text=True, check=False, timeout=PATIENCE_S).stdout


# ---- who gets in


@pytest.mark.parametrize("family", [0, 1])
def test_right_certificate_gets_in_by_tls_1_3(broker: str, family: int) -> None:
    host = BROKERS[broker][family]
    said = knows(host, ["-cert", str(pair("gw-b")), "-key", str(pair("gw-b")), "-verify_ip", host])
    assert {"TLSv1.3", "Verify return code: 0 (ok)"} <= set(re.findall(r"TLSv1\.\d|Verify return code: .*", said)), said
    with Client(host, pair("gw-b")) as client:
        assert client.publish("plant-7/gw-b/boiler") in (0, 0x10)


def test_tls_1_2_is_refused(broker: str) -> None:
    said = knows(BROKERS[broker][0], ["-tls1_2", "-cert", str(pair("gw-b")), "-key", str(pair("gw-b"))])
    assert "Cipher is (NONE)" in said or "Cipher    : 0000" in said, said


def forged(folder: Path, name: str, *, days: tuple[int, int], own: bool = False) -> Path:
    """A certificate for gateway b with the site's authority (or of its own), valid from and to so many days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, UUID["b"])])
    issuer = x509.load_pem_x509_certificate((SITE / "pki/authority.pem").read_bytes())
    signer = key if own else serialization.load_pem_private_key((SITE / "pki/authority.key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject if own else issuer.subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now + datetime.timedelta(days[0])).not_valid_after(now + datetime.timedelta(days[1]))
    path = folder / f"{name}.pem"
    plain = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + plain)
    return path


def wrong(kind: str, folder: Path, broker: str) -> Path | None:
    """A pair that must not get in."""
    match kind:
        case "none":
            return None
        case "self-signed":
            return forged(folder, kind, days=(-1, 30), own=True)
        case "expired":
            return forged(folder, kind, days=(-30, -1))
        case "not-yet-valid":
            return forged(folder, kind, days=(1, 30))
        case "other-authority":
            other = make_pki(folder / "other")
            path = folder / "other.pem"
            path.write_bytes(other.client.cert_file.read_bytes() + other.client.key_file.read_bytes())
            return path
        case "broker's-own":
            path = folder / "server.pem"
            path.write_text(on(broker, "cat", "/etc/mosquitto/holdfast/broker.pem"))
            return path
    return pair("lost")


@pytest.mark.parametrize("kind", ["none", "self-signed", "other-authority", "expired", "not-yet-valid", "revoked", "broker's-own"])
def test_wrong_certificate_is_refused(broker: str, kind: str, tmp_path: Path) -> None:
    with Client(BROKERS[broker][0], forged(tmp_path, "right", days=(-1, 30))):  # the forger's are taken where they are right
        pass
    with pytest.raises(Rejected), Client(BROKERS[broker][0], wrong(kind, tmp_path, broker)):
        pass


def test_mosquitto_client_without_certificate_is_refused(broker: str) -> None:
    words = [
        "mosquitto_pub",
        "-h",
        BROKERS[broker][0],
        "-p",
        str(PORT),
        "--cafile",
        str(TRUSTED),
        "-t",
        "plant-7/gw-b/x",
        "-m",
        "x",
        "-q",
        "1",
    ]
    own = [*words, "--cert", str(pair("gw-b")), "--key", str(pair("gw-b"))]
    assert subprocess.run(own, capture_output=True, check=False, timeout=PATIENCE_S).returncode == 0
    assert subprocess.run(words, capture_output=True, check=False, timeout=PATIENCE_S).returncode != 0


# ---- who may do what

OWN: Final = (
    *(f"spBv1.0/plant-7/{verb}/gw-b" for verb in ("NBIRTH", "NDATA", "NDEATH")),
    *(f"spBv1.0/plant-7/{verb}/gw-b/boiler" for verb in ("DBIRTH", "DDATA", "DDEATH")),
    *("plant-7/gw-b/boiler", "holdfast/plant-7/gw-b/ledger", "holdfast/plant-7/gw-b/commands/outcomes", f"{UUID['b']}/any/thing"),
)
OTHERS: Final = (
    *(each.replace("gw-b", "gw-a").replace(UUID["b"], UUID["a"]) for each in OWN),
    *("spBv1.0/plant-8/NDATA/gw-b", "spBv1.0/plant-7/NCMD/gw-b", "spBv1.0/plant-7/DCMD/gw-b/boiler", "holdfast/plant-7/gw-b/ledger/ack"),
    *("spBv1.0/STATE/scada", "plant-7/boiler", "gw-b", "$SYS/broker/uptime", "holdfast/plant-7", "spBv1.0/plant-7/NDATA/gw-b/boiler"),
)


def test_gateway_publishes_its_own_topics_and_no_others(broker: str) -> None:
    with Client(BROKERS[broker][0], pair("gw-b")) as client:
        assert {topic: client.publish(topic) for topic in OWN if client.publish(topic) not in (0, 0x10)} == {}
        assert {topic: client.publish(topic) for topic in OTHERS if client.publish(topic) != NOT_AUTHORIZED} == {}


def test_gateway_that_subscribes_to_everything_sees_its_own_alone(broker: str) -> None:
    host = BROKERS[broker][0]
    with (
        Client(host, pair("gw-b")) as nosy,
        Client(host, pair("gw-d")) as neighbour,
        Client(host, pair("reader")) as reader,
        Client(host, pair("onlooker")) as onlooker,
    ):
        for each in (nosy, reader, onlooker):
            each.subscribe("#", "spBv1.0/#", "holdfast/#", "+/gw-d/#")
        topics = {"spBv1.0/plant-7/DDATA/gw-d/boiler", "plant-7/gw-d/boiler", "holdfast/plant-7/gw-d/ledger"}
        for topic in topics:
            assert neighbour.publish(topic) in (0, 0x10)
        assert reader.publish("spBv1.0/plant-7/NCMD/gw-b", b"the last") in (0, 0x10)
        assert nosy.next() == ("spBv1.0/plant-7/NCMD/gw-b", b"the last")
        for each in (reader, onlooker):
            all_of(each, topics)
        assert {topic for topic, _ in nosy.inbox.queue} <= {"spBv1.0/plant-7/NCMD/gw-b"}  # once for each filter that fits


def test_consumer_reads_what_it_may_and_commands_only_where_told(broker: str) -> None:
    with Client(BROKERS[broker][0], pair("reader")) as reader, Client(BROKERS[broker][0], pair("onlooker")) as onlooker:
        assert reader.publish("spBv1.0/plant-7/DCMD/gw-d/boiler") in (0, 0x10)
        assert onlooker.publish("spBv1.0/plant-7/DCMD/gw-d/boiler") == NOT_AUTHORIZED
        assert onlooker.publish("holdfast/plant-7/gw-d/ledger/ack") == NOT_AUTHORIZED
        assert onlooker.publish("spBv1.0/plant-7/NCMD/gw-b") == NOT_AUTHORIZED
        assert reader.publish("plant-7/gw-d/boiler") == NOT_AUTHORIZED


def test_certificate_without_rights_may_do_nothing(broker: str) -> None:
    with Client(BROKERS[broker][0], pair("stranger")) as stranger:
        assert stranger.publish("stranger/x") == NOT_AUTHORIZED


def test_nobody_pushes_another_out_by_taking_its_client_id(broker: str) -> None:
    host = BROKERS[broker][0]
    with Client(host, pair("gw-d"), client_id="gateway-d") as victim:
        assert victim.subscribe("spBv1.0/plant-7/NCMD/gw-d") <= 1
        for name in ("gateway-d", UUID["d"]):
            with Client(host, pair("gw-b"), client_id=name) as thief:
                assert thief.publish("spBv1.0/plant-7/NDATA/gw-d") == NOT_AUTHORIZED
        with Client(host, pair("reader")) as reader:
            reader.publish("spBv1.0/plant-7/NCMD/gw-d", b"still there")
        assert victim.next() == ("spBv1.0/plant-7/NCMD/gw-d", b"still there")
        assert victim.gone == []
        with Client(host, pair("gw-d"), client_id="another name"):  # the same certificate does
            until(lambda: victim.gone != [], "its own certificate takes the place of the first connection")


# ---- limits


def test_packet_above_the_limit_ends_the_connection(broker: str) -> None:
    host = BROKERS[broker][0]
    with Client(host, pair("gw-b")) as client:
        assert client.largest == 65536
        assert client.publish("plant-7/gw-b/large", b"x" * 60_000) in (0, 0x10)
    with Client(host, pair("gw-b"), protocol=paho.MQTTv311) as client:
        client.throw("plant-7/gw-b/large", b"x" * 70_000)
        until(lambda: client.gone != [], "the broker ends the connection")


def test_address_that_connects_too_often_waits(broker: str) -> None:
    """Another address of ours, so that the other tests are not kept waiting: 400 at once, then 100 a second."""
    address, host = "10.77.0.99", BROKERS[broker][0]
    subprocess.run(("ip", "addr", "replace", f"{address}/24", "dev", "br0"), check=True)
    with contextlib.ExitStack() as stack:
        counted = r"update @callers4 .* counter packets (\d+)"
        before = re.search(counted, on(broker, "nft", "list", "table", "inet", "holdfast_broker"))
        for _ in range(900):
            one = stack.enter_context(socket.socket())
            one.bind((address, 0))
            one.setblocking(False)
            one.connect_ex((host, PORT))
        after = re.search(counted, on(broker, "nft", "list", "table", "inet", "holdfast_broker"))
    assert before
    assert after
    assert int(after[1]) > int(before[1])
    with Client(host, pair("gw-b")):  # who comes from elsewhere is not kept out
        pass


def test_limits_stay_when_the_host_loads_its_own_rules(broker: str) -> None:
    """Debian's ruleset begins by flushing all others."""

    def there() -> bool:
        return "holdfast_broker" in on(broker, "nft", "list", "tables")

    for word in ("restart", "reload", "stop", "start", "stop"):
        on(broker, "systemctl", word, "nftables.service")
        if word != "stop":
            until(there, f"the limits are set again after the {word}")
    on(broker, "systemctl", "start", "holdfast-broker-limits.service")
    assert there()


# ---- the host


@pytest.mark.parametrize("family", [0, 1])
def test_only_the_declared_ports_are_open(broker: str, family: int) -> None:
    host = BROKERS[broker][family]
    assert list(open_ports(host)) == [22, PORT]
    assert on(broker, "ss", "-Hlun").strip() == ""


def open_ports(host: str) -> Iterator[int]:
    for port in range(1, 65536):
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), timeout=PATIENCE_S).close()
            yield port


def test_files_are_for_the_broker_alone(broker: str) -> None:
    folder = "/etc/mosquitto/holdfast"
    modes = dict(
        line.split(" ", 1)
        for line in on(broker, "sh", "-c", f"stat -c '%n %a %U:%G' {folder} {folder}/* /etc/mosquitto/mosquitto.conf").splitlines()
    )
    assert modes.pop(folder) == "750 root:mosquitto"
    assert set(modes.values()) == {"640 root:mosquitto"}, modes
    assert on(broker, "find", "/etc/mosquitto", "/var/lib/mosquitto", "-perm", "/o+w", "!", "-type", "l").strip() == ""
    assert on(broker, "stat", "-c", "%a %U", "/var/lib/mosquitto").split() == ["700", "mosquitto"]
    assert ".next" not in "".join(modes)


def test_service_is_confined(broker: str) -> None:
    pid = on(broker, "systemctl", "show", "--value", "-p", "MainPID", "mosquitto").strip()
    status = on(broker, "cat", f"/proc/{pid}/status")
    held = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith(("Cap", "NoNew"))}
    assert (int(held["CapEff"], 16), int(held["CapBnd"], 16), held["NoNewPrivs"]) == (0, 0, "1")
    assert on(broker, "ps", "-o", "user:20=", "-p", pid).strip() == "mosquitto"
    on(broker, "systemd-analyze", "security", "--threshold=15", "mosquitto.service")
    touched = on(broker, "sh", "-c", f"nsenter -t {pid} -m touch /etc/x 2>&1 || true")
    assert "Read-only file system" in touched


# ---- what stays


def test_restart_keeps_what_is_retained_and_what_waits(broker: str) -> None:
    host = BROKERS[broker][0]
    with Client(host, pair("gw-d")) as gateway:
        gateway.publish("plant-7/gw-d/state", b"", retain=True)  # what an earlier run may have left
    with Client(host, pair("onlooker"), expiry_s=600) as away:
        away.subscribe("plant-7/gw-d/#")
    with Client(host, pair("gw-d")) as gateway:
        assert gateway.publish("plant-7/gw-d/state", b"retained", retain=True) == 0
        assert gateway.publish("plant-7/gw-d/boiler", b"waiting") == 0
    on(broker, "systemctl", "restart", "mosquitto")
    with Client(host, pair("onlooker"), expiry_s=600) as back:
        assert {back.next(), back.next()} == {("plant-7/gw-d/state", b"retained"), ("plant-7/gw-d/boiler", b"waiting")}
    with Client(host, pair("onlooker")) as anew:
        anew.subscribe("plant-7/gw-d/#")
        assert anew.next() == ("plant-7/gw-d/state", b"retained")


def test_relay_routes_its_gateways_and_brings_their_commands() -> None:
    """Plant-8 goes from brk-12 to brk-13; plant-7 does not."""
    with Client(ABOVE, pair("reader")) as cloud, Client(BELOW, pair("gw-c")) as gateway:
        cloud.subscribe("spBv1.0/#", "plant-7/gw-d/local")
        gateway.subscribe("spBv1.0/plant-8/NCMD/gw-c")
        with Client(BELOW, pair("gw-d")) as other:
            assert other.publish("plant-7/gw-d/local", b"stays") in (0, 0x10)

        def has_gone_up() -> bool:
            gateway.publish("spBv1.0/plant-8/DDATA/gw-c/boiler", b"goes up")
            return not cloud.inbox.empty()

        until(has_gone_up, "the relay connects again after the restart above")
        assert {cloud.next() for _ in range(cloud.inbox.qsize())} == {("spBv1.0/plant-8/DDATA/gw-c/boiler", b"goes up")}
        cloud.publish("spBv1.0/plant-8/NCMD/gw-c", b"comes down")
        assert gateway.next() == ("spBv1.0/plant-8/NCMD/gw-c", b"comes down")


def test_real_gateway_has_lost_nothing() -> None:
    """It scanned and delivered to brk-12 while certificates, authority and broker changed under it; its consumer missed nothing."""
    log = SITE / "consumer.log"
    subprocess.run((ROOT / "tools/machines.py", "end", "broker", "consumer"), check=True)
    verdict = json.loads(log.read_text().splitlines()[-1])["verdict"]
    assert verdict["received"] > 100, verdict
    assert (verdict["missing"], verdict["lost"], verdict["malformed"], verdict["marks_wrong"]) == (0, {}, 0, 0), verdict


def all_of(client: Client, topics: set[str]) -> None:
    """Return when a message on each of them has come."""
    while topics:
        topics = topics - {client.next()[0]}


def until(holds: Any, what: str) -> None:  # Any: a condition
    ends = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < ends, what
        time.sleep(0.02)
