"""MES and SCADA on node-opcua read, watch and write the gateway's tags: the real gateway between two programs that others wrote."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.uaerrors import UaStatusCodeError
from cryptography import x509

from gateway.faces.opcua.units import CODES, unit_id
from protocols.opcua import certificates
from tests.peers.holdfast import Holdfast, until
from tests.peers.libmodbus import LibmodbusServer, registers
from tests.peers.mosquitto import free_port
from tests.peers.opcua_client import OpcUaClient, Refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

TAGS: Final = [
    {"name": "steam/pressure", "at": "holding:0", "kind": "float32", "unit": "bar"},
    {"name": "steam/flow rate", "at": "holding:2", "kind": "uint16", "unit": "furlong"},
    {"name": "setpoint", "at": "holding:10", "kind": "float32", "writable": True, "minimum": 0, "maximum": 100},
    {"name": "stuck", "at": "holding:20", "kind": "uint16", "writable": True},
    {"name": "running", "at": "coil:0", "kind": "bool", "writable": True},
    {"name": "counter", "at": "input:0", "kind": "uint64"},
    {"name": "offset", "at": "input:4", "kind": "int16"},
    {"name": "ghost", "at": "holding:900", "kind": "float32"},
    {"name": "label", "at": "holding:30", "kind": "string", "length": 8},
]
MANY: Final = 1203
USER: Final = {"name": "operator", "password": "correct horse"}
POLICIES: Final = ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"]
NS: Final = "ns=2;s="


@dataclass
class Plant:
    """A field device, the gateway with four faces, and two clients: one that is trusted, and one that nobody knows."""

    field: LibmodbusServer
    gateway: Holdfast
    ports: dict[str, int]
    trust: Path
    trusted: OpcUaClient
    stranger: OpcUaClient

    def at(self, face: str) -> str:
        return f"opc.tcp://127.0.0.1:{self.ports[face]}"

    def outcomes(self) -> list[dict[str, Any]]:  # Any: JSON
        """Recorded outcomes of commands, oldest first."""
        lines = self.gateway.ask("tail", "-n", "100", "--lane", "events")
        return [dict(zip(line["tags"], line["values"], strict=True)) for line in lines]

    async def enter(self, **more: Any) -> None:  # Any: JSON
        """The trusted client, as the operator."""
        await self.trusted.ask("connect", **{"endpoint": self.at("mes"), "policy": "Basic256Sha256", "user": USER, **more})

    async def read(self, *tags: str) -> list[dict[str, Any]]:  # Any: JSON
        found: list[dict[str, Any]] = await self.trusted.ask("read", nodes=[f"{NS}boiler/{tag}" for tag in tags])
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plant(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Plant]:
    folder = tmp_path_factory.mktemp("plant")
    (folder / "password").write_text("correct horse\n")
    ports = {name: free_port() for name in ("mes", "open", "others")}
    trust = folder / "opcua"
    password = {"from": "file", "path": str(folder / "password")}
    common = {"type": "opcua-server", "refresh_s": 0.1}
    faces: list[dict[str, Any]] = [  # Any: JSON
        {"name": "mes", "writable": True, "users": [{"name": "operator", "password": password}], "user_certificates": True,
         "security": {"folder": str(trust)}, "command_timeout_s": 3},
        {"name": "open", "anonymous": True, "users": [{"name": "operator", "password": password}],
         "max_clients": 3, "max_subscriptions": 2, "max_items": 12,
         "security": {"folder": str(folder / "open"), "policies": ["none"]}},
        {"name": "others", "anonymous": True, "clients": ["192.0.2.0/24"], "security": {"folder": str(folder / "o"), "policies": ["none"]}},
    ]  # fmt: skip
    async with AsyncExitStack() as stack:
        field = await stack.enter_async_context(LibmodbusServer())
        await field.set(1, "holding", 0, *registers("f", 2.5))
        await field.set(1, "holding", 2, 7)
        await field.set(1, "holding", 30, *struct.unpack(">4H", b"boiler-1"))
        await field.set(1, "input", 0, *registers("Q", 2**64 - 2))
        await field.set(1, "input", 4, 2**16 - 3)
        await field.hole(1, "holding", 900, 901)
        await field.keep(1, 20, 20)
        many = [{"name": f"v{at:04}", "at": f"holding:{1000 + at}", "kind": "uint16"} for at in range(MANY)]
        site = {
            "holdfast": 1,
            "gateway": {"group": "plant", "name": "gw"},
            "journal": {"path": "./journal", "commit_window_ms": 10},
            "connections": [
                {
                    "name": "line",
                    "type": "modbus-tcp",
                    "host": "127.0.0.1",
                    "port": field.port,
                    "devices": [{"name": "boiler", "scan_s": 0.1, "tags": TAGS}, {"name": "many", "scan_s": 30, "tags": many}],
                }
            ],
            "faces": [{**common, **face, "port": ports[face["name"]]} for face in faces],
            "outage_budget_s": 60,
        }
        clients = []
        for name in ("trusted", "stranger"):
            clients.append(OpcUaClient(folder / name))
            stack.callback(clients[-1].end)
        gateway = stack.enter_context(Holdfast(folder / "gateway", site))
        await asyncio.gather(*(asyncio.to_thread(one.launch) for one in clients))
        await asyncio.to_thread(until, "the faces listen", lambda: gateway.events("face_listens") == len(faces), 90.0)
        found = Plant(field, gateway, ports, trust, *clients)
        with pytest.raises(Refused):
            await found.enter()
        for one in certificates.shelf(trust, "rejected"):
            certificates.put(trust, one.certificate, "trusted")
        yield found


# ---- who may enter


async def test_only_signed_and_encrypted_endpoints_are_offered(plant: Plant) -> None:
    found = await plant.stranger.ask("endpoints", endpoint=plant.at("mes"))
    assert [(one["policy"], one["mode"]) for one in found] == [(policy, "SignAndEncrypt") for policy in POLICIES]
    assert all(one["tokens"] == ["UserName", "Certificate"] for one in found)
    assert found[0]["uri"] == "urn:holdfast:plant:gw:mes"


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_trusted_program_with_the_right_password_enters(plant: Plant, policy: str) -> None:
    await plant.enter(policy=policy)
    assert (await plant.read("label"))[0]["value"] == "boiler-1"


async def test_an_unknown_program_is_refused_recorded_and_welcome_once_it_is_trusted(plant: Plant) -> None:
    wish = {"endpoint": plant.at("mes"), "policy": "Basic256Sha256", "user": USER}
    for _ in range(3):
        with pytest.raises(Refused):
            await plant.stranger.ask("connect", **wish)
    (refused,) = certificates.shelf(plant.trust, "rejected")
    own = next(plant.stranger.pki.glob("own/certs/*.pem")).read_bytes()
    assert refused.fingerprint == certificates.fingerprint(x509.load_pem_x509_certificate(own))
    said = [each for each in plant.gateway.log() if each["event"] == "client_refused" and refused.fingerprint[:16] in each["reason"]]
    assert len(said) == 1, "it is said once, however often it comes"
    accept = ("opcua", "trust", "accept", str(plant.gateway.site_file), "mes", refused.fingerprint[:16])
    await asyncio.to_thread(plant.gateway.command, *accept)
    await plant.stranger.ask("connect", **wish)
    assert (await plant.stranger.ask("read", nodes=[f"{NS}boiler/label"]))[0]["value"] == "boiler-1"
    reject = ("opcua", "trust", "reject", str(plant.gateway.site_file), "mes", refused.fingerprint[:16])
    await asyncio.to_thread(plant.gateway.command, *reject)
    with pytest.raises(Refused):
        await plant.stranger.ask("connect", **wish)


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ({"name": "operator", "password": "wrong"}, "BadUserAccessDenied"),
        ({"name": "operator", "password": ""}, "BadUserAccessDenied"),
        ({"name": "nobody", "password": "correct horse"}, "BadUserAccessDenied"),
        (None, "Cannot find ANONYMOUS user token policy"),
    ],
)
async def test_nobody_enters_who_is_not_a_user(plant: Plant, user: dict[str, str] | None, why: str) -> None:
    with pytest.raises(Refused, match=why):
        await plant.enter(user=user)


async def test_a_user_with_a_certificate_enters_once_it_is_trusted(plant: Plant) -> None:
    user = {
        "cert": str(next(plant.stranger.pki.glob("own/certs/*.pem"))),
        "key": str(plant.stranger.pki / "own" / "private" / "private_key.pem"),
    }
    with pytest.raises(Refused, match="BadIdentityTokenRejected"):
        await plant.enter(user=user)
    (refused,) = certificates.shelf(plant.trust / "users", "rejected")
    certificates.put(plant.trust / "users", refused.certificate, "trusted")
    await plant.enter(user=user)
    assert (await plant.read("label"))[0]["value"] == "boiler-1"


async def test_without_security_nothing_is_answered_but_the_endpoints(plant: Plant) -> None:
    for user in (USER, None):
        with pytest.raises(Refused):
            await plant.stranger.ask("connect", endpoint=plant.at("mes"), user=user)
    client = Client(plant.at("mes"), timeout=5)
    await client.connect_socket()
    await client.send_hello()
    await client.open_secure_channel()
    try:
        with pytest.raises(UaStatusCodeError, match="BadSecurityModeRejected"):
            await client.create_session()
    finally:
        client.disconnect_socket()


async def test_who_is_not_among_the_clients_cannot_connect(plant: Plant) -> None:
    with socket.create_connection(("127.0.0.1", plant.ports["others"]), timeout=10) as line:
        line.settimeout(10)
        try:
            line.sendall(b"HELF")
            answer = line.recv(1)
        except ConnectionError:
            answer = b""
        assert answer == b""
    refused = [each["reason"] for each in plant.gateway.log() if each["event"] == "client_refused" and each["face"] == "others"]
    assert refused == ["not among the clients"]


# ---- what there is


async def test_tags_are_found_where_the_document_has_them(plant: Plant) -> None:
    await plant.enter()
    ask = plant.trusted.ask
    assert [one["id"] for one in (await ask("browse", node="i=85"))["found"]][-1] == f"{NS}gateway:"
    assert [one["name"] for one in (await ask("browse", node=f"{NS}gateway:"))["found"]] == ["line"]
    assert [one["id"] for one in (await ask("browse", node=f"{NS}connection:line"))["found"]] == [f"{NS}boiler", f"{NS}many"]
    boiler = {one["name"]: one for one in (await ask("browse", node=f"{NS}boiler"))["found"]}
    assert list(boiler) == ["steam", "setpoint", "stuck", "running", "counter", "offset", "ghost", "label"]
    assert boiler["steam"]["kind"] == "Object"
    steam = {one["name"]: one for one in (await ask("browse", node=f"{NS}folder:boiler/steam"))["found"]}
    assert steam["pressure"]["id"] == f"{NS}boiler/steam/pressure"
    assert (await ask("path", path="/Objects/2:gw/2:line/2:boiler/2:steam/2:flow rate"))["ids"] == [f"{NS}boiler/steam/flow rate"]
    assert (await ask("path", path="/Objects/2:gw/2:line/2:kettle"))["status"] == "BadNoMatch"


async def test_a_folder_of_many_comes_in_portions_and_is_complete(plant: Plant) -> None:
    await plant.enter()
    for most, turns in ((0, 3), (1000, 3), (100, 13)):
        found = await plant.trusted.ask("browse", node=f"{NS}many", most=most)
        assert [one["name"] for one in found["found"]] == [f"v{at:04}" for at in range(MANY)]
        assert found["turns"] == turns


async def test_nodes_have_types_units_and_rights(plant: Plant) -> None:
    await plant.enter()
    expected = {"setpoint": (10, 3), "stuck": (5, 3), "running": (1, 3), "counter": (9, 1), "offset": (4, 1), "label": (12, 1)}
    for tag, (kind, access) in expected.items():
        found = await plant.trusted.ask("attributes", node=f"{NS}boiler/{tag}")
        assert (found["DataType"], found["AccessLevel"], found["UserAccessLevel"]) == (f"ns=0;i={kind}", str(access), str(access))
    bar = await plant.trusted.ask("unit", node=f"{NS}unit:boiler/steam/pressure")
    assert bar == {"uri": "http://www.opcfoundation.org/UA/units/un/cefact", "id": 4342098, "text": "bar"}
    furlong = await plant.trusted.ask("unit", node=f"{NS}unit:boiler/steam/flow rate")
    assert furlong == {"uri": "urn:holdfast:plant:gw", "id": -1, "text": "furlong"}


async def test_units_are_those_that_others_know(plant: Plant) -> None:
    """node-opcua has the foundation's table for some; where both have a unit they have it alike."""
    theirs = await plant.trusted.ask("units")
    both = {text: number for text, number in theirs.items() if text in CODES}
    assert len(both) >= 25
    assert {text: unit_id(text) for text in both} == both


async def test_values_qualities_and_source_times_are_read(plant: Plant) -> None:
    await plant.enter()
    found = await plant.read("steam/pressure", "counter", "offset", "running", "label", "nothing")
    assert [(one["type"], one["value"], one["status"]) for one in found] == [
        ("Float", 2.5, "Good"),
        ("UInt64", str(2**64 - 2), "Good"),
        ("Int16", -3, "Good"),
        ("Boolean", False, "Good"),
        ("String", "boiler-1", "Good"),
        ("Null", None, "BadNodeIdUnknown"),
    ]
    (ghost,) = await plant.read("ghost")
    assert ghost["type"] == "Null", "what has no value shows none"
    assert ghost["status"].startswith("Bad")
    (before,) = await plant.read("offset")
    async with asyncio.timeout(20):
        while (await plant.read("offset"))[0]["source"] <= before["source"]:  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.05)


async def test_a_subscriber_is_told_of_each_change_and_of_lost_and_back(plant: Plant) -> None:
    await plant.enter()
    names = ["steam/pressure", "ghost", "label", "setpoint", "nothing"]
    statuses = await plant.trusted.ask("watch", nodes=[f"{NS}boiler/{name}" for name in names])
    assert statuses == ["Good", "Good", "Good", "Good", "BadNodeIdUnknown"]
    seen: list[dict[str, Any]] = []  # Any: JSON

    async def until_seen(tag: str, what: Any) -> None:  # Any: a value, or how a status begins
        async with asyncio.timeout(20):
            while not any(
                one["node"] == f"{NS}boiler/{tag}" and (one["value"] == what or one["status"].startswith(str(what))) for one in seen
            ):
                await asyncio.sleep(0.05)
                seen.extend(await plant.trusted.ask("seen"))

    await until_seen("steam/pressure", 2.5)
    await until_seen("ghost", "Bad")
    seen.clear()
    for value in (3.5, -4.25, 2.5):
        await plant.field.set(1, "holding", 0, *registers("f", value))
        await until_seen("steam/pressure", value)
    assert [one["value"] for one in seen] == [3.5, -4.25, 2.5], "what did not change is not told"
    seen.clear()
    await plant.field.stop()
    await until_seen("steam/pressure", "Bad")
    await until_seen("setpoint", "Bad")  # it was 0, and what has no value is 0 in the columns: its quality alone is another
    assert {one["type"] for one in seen} == {"Null"}
    seen.clear()
    await plant.field.start()
    await plant.field.set(1, "holding", 0, *registers("f", 2.5))
    await plant.field.set(1, "holding", 2, 7)
    await plant.field.set(1, "holding", 30, *struct.unpack(">4H", b"boiler-1"))
    await plant.field.set(1, "input", 0, *registers("Q", 2**64 - 2))
    await plant.field.set(1, "input", 4, 2**16 - 3)
    await plant.field.hole(1, "holding", 900, 901)
    await plant.field.keep(1, 20, 20)
    await until_seen("steam/pressure", 2.5)
    await until_seen("label", "boiler-1")


async def test_a_subscriber_of_many_is_told_everything(plant: Plant) -> None:
    await plant.enter()
    statuses = await plant.trusted.ask("watch", nodes=[f"{NS}many/v{at:04}" for at in range(MANY)])
    assert statuses == ["Good"] * MANY
    seen: list[dict[str, Any]] = []  # Any: JSON
    async with asyncio.timeout(30):
        while len(seen) < MANY:
            await asyncio.sleep(0.05)
            seen.extend(await plant.trusted.ask("seen"))
    assert {one["node"] for one in seen} == {f"{NS}many/v{at:04}" for at in range(MANY)}
    assert len(seen) == MANY


async def test_a_deadband_is_kept(plant: Plant) -> None:
    await plant.enter()
    wish = {"nodes": [f"{NS}boiler/offset"], "filter": {"trigger": 1, "deadbandType": 1, "deadbandValue": 10}}
    assert await plant.trusted.ask("watch", **wish) == ["Good"]
    seen: list[Any] = []  # Any: JSON
    for value, wanted in ((2, [-3]), (20, [-3, 20]), (25, [-3, 20]), (-3, [-3, 20, -3])):
        await plant.field.set(1, "input", 4, value % 2**16)
        async with asyncio.timeout(20):
            while (await plant.read("offset"))[0]["value"] != value or len(seen) < len(wanted):
                await asyncio.sleep(0.05)
                seen += [one["value"] for one in await plant.trusted.ask("seen")]
        assert seen == wanted
    percent = {"nodes": [f"{NS}boiler/offset"], "filter": {"trigger": 1, "deadbandType": 2, "deadbandValue": 10}}
    assert await plant.trusted.ask("watch", **percent) == ["BadMonitoredItemFilterUnsupported"]


# ---- writing


async def test_a_write_that_is_answered_well_is_in_the_field_and_recorded(plant: Plant) -> None:
    await plant.enter()
    before = len(plant.outcomes())
    assert await plant.trusted.ask("write", node=f"{NS}boiler/setpoint", type="Float", value=21.5) == "Good"
    assert await plant.field.get(1, "holding", 10, 2) == registers("f", 21.5)
    assert await plant.trusted.ask("write", node=f"{NS}boiler/running", type="Boolean", value=True) == "Good"
    assert await plant.field.get(1, "coil", 0) == [1]
    await asyncio.to_thread(until, "both outcomes are recorded", lambda: len(plant.outcomes()) == before + 2)
    found = plant.outcomes()[before:]
    assert [(each["device"], each["tag"], each["value"], each["state"]) for each in found] == [
        ("boiler", "setpoint", "21.5", "verified"),
        ("boiler", "running", "true", "verified"),
    ]
    assert all(each["source"] == "face mes, operator at 127.0.0.1" for each in found)


@pytest.mark.parametrize(
    ("tag", "wish", "why"),
    [
        ("setpoint", {"type": "Float", "value": 101}, "BadOutOfRange"),
        ("stuck", {"type": "UInt16", "value": 9}, "BadDeviceFailure"),  # the field acknowledges and does nothing: a mismatch
        ("setpoint", {"type": "Double", "value": 21}, "BadTypeMismatch"),
        ("setpoint", {"type": "Float", "value": [1, 2], "array": True}, "BadTypeMismatch"),
        ("setpoint", {"type": "String", "value": "21"}, "BadTypeMismatch"),
        ("steam/pressure", {"type": "Float", "value": 1}, "BadNotWritable"),
        ("nothing", {"type": "Float", "value": 1}, "BadNodeIdUnknown"),
    ],
)
async def test_a_write_that_did_not_happen_is_not_answered_well(plant: Plant, tag: str, wish: dict[str, Any], why: str) -> None:
    # Any: JSON
    await plant.enter()
    before = await plant.field.get(1, "holding", 0, 30)
    assert await plant.trusted.ask("write", node=f"{NS}boiler/{tag}", **wish) == why
    assert await plant.field.get(1, "holding", 0, 30) == before


async def test_a_write_to_a_field_that_is_silent_is_not_answered_well(plant: Plant) -> None:
    await plant.enter()
    await plant.field.silent(1)
    try:
        answer = await plant.trusted.ask("write", node=f"{NS}boiler/setpoint", type="Float", value=33)
        assert answer in ("BadTimeout", "BadNoCommunication")
    finally:
        await plant.field.silent(1, False)
    async with asyncio.timeout(30):
        while (await plant.read("label"))[0]["status"] != "Good":  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.05)


async def test_nothing_but_values_can_be_written(plant: Plant) -> None:
    await plant.enter()
    ask = plant.trusted.ask
    name = {"type": "LocalizedText", "value": {"text": "mine"}}
    assert await ask("attribute", node=f"{NS}boiler/setpoint", name="DisplayName", **name) == "BadNotWritable"
    assert await ask("attribute", node=f"{NS}boiler/setpoint", name="AccessLevel", type="Byte", value=255) == "BadNotWritable"
    assert await ask("write", node="i=2255", type="String", value="mine") == "BadNotWritable"
    assert await ask("write", node=f"{NS}unit:boiler/steam/pressure", type="String", value="mine") == "BadNotWritable"


# ---- a face without security, and one that misbehaves


async def test_a_face_that_is_not_writable_is_not_written_to(plant: Plant) -> None:
    await plant.stranger.ask("connect", endpoint=plant.at("open"))
    assert (await plant.stranger.ask("attributes", node=f"{NS}boiler/setpoint"))["AccessLevel"] == "1"
    before = await plant.field.get(1, "holding", 10, 2)
    assert await plant.stranger.ask("write", node=f"{NS}boiler/setpoint", type="Float", value=50) == "BadNotWritable"
    assert await plant.field.get(1, "holding", 10, 2) == before
    await plant.stranger.ask("leave")


async def test_a_password_is_encrypted_also_where_messages_are_not(plant: Plant) -> None:
    await plant.stranger.ask("connect", endpoint=plant.at("open"), user=USER)
    with pytest.raises(Refused, match="BadUserAccessDenied"):
        await plant.stranger.ask("connect", endpoint=plant.at("open"), user={**USER, "password": "wrong"})
    async with Client(plant.at("open"), timeout=10) as client:
        token = ua.UserNameIdentityToken(UserName="operator", Password=b"correct horse")
        wish = ua.ActivateSessionParameters(UserIdentityToken=token)
        with pytest.raises(UaStatusCodeError, match="BadIdentityTokenRejected"):
            await client.uaclient.session.activate_session(wish)


async def test_one_client_cannot_touch_what_another_watches(plant: Plant) -> None:
    async with Client(plant.at("open"), timeout=10) as one, Client(plant.at("open"), timeout=10) as other:
        mine = await one.create_subscription(100)
        assert mine.subscription_id is not None
        (answer,) = await other.uaclient.session.delete_subscriptions([mine.subscription_id])
        assert answer.name == "BadSubscriptionIdInvalid"
        parameters = ua.CreateMonitoredItemsParameters(SubscriptionId=mine.subscription_id)
        with pytest.raises(UaStatusCodeError, match="BadSubscriptionIdInvalid"):
            await other.uaclient.session.create_monitored_items(parameters)
        (still,) = await one.uaclient.session.delete_subscriptions([mine.subscription_id])
        assert still.is_good()


async def test_sessions_subscriptions_items_and_operations_have_limits(plant: Plant) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(plant.at("open"), timeout=10)) for _ in range(3)]
        one_more = Client(plant.at("open"), timeout=10)
        with pytest.raises(UaStatusCodeError, match="BadTooManySessions"):
            await one_more.connect()
        node = ua.NodeId.from_string("ns=2;s=boiler/label")
        subscriptions = [await clients[0].create_subscription(100) for _ in range(2)]
        with pytest.raises(UaStatusCodeError, match="BadTooManySubscriptions"):
            await clients[0].create_subscription(100)
        items = [ua.MonitoredItemCreateRequest(ua.ReadValueId(node, AttributeIds.Value)) for _ in range(15)]
        wish = ua.CreateMonitoredItemsParameters(SubscriptionId=subscriptions[0].subscription_id, ItemsToCreate=items)
        made = await clients[0].uaclient.session.create_monitored_items(wish)
        assert [each.StatusCode.name for each in made] == ["Good"] * 12 + ["BadTooManyMonitoredItems"] * 3
        with pytest.raises(UaStatusCodeError, match="BadTooManyOperations"):
            await clients[1].read_values([clients[1].get_node(node)] * 1001)
        assert await clients[1].read_values([clients[1].get_node(node)] * 1000) == ["boiler-1"] * 1000


HELLO: Final = b"HELF" + struct.pack("<IIIIII", 32, 0, 65535, 65535, 0, 0) + struct.pack("<i", 0)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"HELF" + struct.pack("<I", 2**31) + bytes(100),
        b"MSGF" + struct.pack("<I", 3),
        HELLO + b"MSGF" + struct.pack("<IIIIIi", 100, 0, 0, 1, 1, 461) + bytes(76),
        HELLO + b"OPNF" + struct.pack("<II", 40, 0) + b"\xff" * 28,
        HELLO + b"OPNF" + struct.pack("<IIi", 100, 0, 40) + b"http://opcfoundation.org/UA/SecurityPolicy#Basic256"[:40] + bytes(44),
        b"HELF" + struct.pack("<IIIIII", 32, 0, 1, 1, 0, 0) + struct.pack("<i", 0) + b"OPNF" + struct.pack("<II", 60, 0) + bytes(48),
        bytes(4000),
    ],
)
@pytest.mark.parametrize("face", ["mes", "open"])
async def test_what_is_no_opc_ua_is_cut_off_and_harms_nobody(plant: Plant, face: str, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", plant.ports[face])
    try:
        writer.write(sent)
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):  # which is an end, too
                await reader.read()
    finally:
        writer.close()
    await plant.enter()
    assert (await plant.read("label"))[0]["value"] == "boiler-1"


# ---- change: last, because it changes what the others look at


async def test_what_is_added_is_there_after_a_reload(plant: Plant) -> None:
    site = json.loads(plant.gateway.site_file.read_text())
    faces = plant.gateway.events("face_listens")
    site["connections"][0]["devices"][0]["tags"].append({"name": "fresh", "at": "holding:2", "kind": "uint16"})
    plant.gateway.write(site)
    await asyncio.to_thread(plant.gateway.reload)
    await asyncio.to_thread(until, "the faces listen anew", lambda: plant.gateway.events("face_listens") == faces + 3, 60.0)
    await plant.enter()
    async with asyncio.timeout(20):
        while (await plant.read("fresh"))[0]["value"] != 7:  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.05)


async def test_the_key_is_for_us_alone(plant: Plant) -> None:
    key = plant.trust / "own" / "key.pem"
    assert key.stat().st_mode & 0o077 == 0
    own = x509.load_der_x509_certificate((plant.trust / "own" / "certificate.der").read_bytes())
    assert certificates.uris(own) == ["urn:holdfast:plant:gw:mes"]
