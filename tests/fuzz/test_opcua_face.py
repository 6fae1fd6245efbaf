"""OPC UA: what a client sends to the gateway's server, after it was let in and before. Nothing but what ends its connection comes out."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Final

import pytest
from asyncua import ua
from asyncua.common.connection import SecureConnection, TransportLimits
from asyncua.common.utils import Buffer
from asyncua.crypto.security_policies import SecurityPolicyNone
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.ua_binary import header_from_binary, struct_to_binary, uatcp_to_binary
from cryptography.exceptions import InvalidSignature

from gateway.commands import Gate
from gateway.config.faces import OpcuaFace, OpcuaSecurity
from gateway.config.model import Gateway
from gateway.faces.opcua import serve
from gateway.faces.opcua.serve import NONSENSE, Shop, _Processor
from gateway.latest import Latest
from gateway.links import Status
from protocols.clock import SystemClock
from protocols.model import Device, Kind, Tag
from tests.fuzz.campaign import frames, run_in_loop, seed
from tests.fuzz.mutate import Mutator

SENT: Final = frames(3_000, 100_000)
CHANNEL: Final = 6
DEVICE: Final = Device("line", "boiler", tuple(Tag(name=f"t{at}", kind=kind, unit="bar", writable=True) for at, kind in enumerate(Kind)))
_ua: Any = ua  # Any: its annotations name types that it never makes


class HastyClock(SystemClock):
    async def sleep_until(self, deadline: float) -> None:
        await asyncio.sleep(0)


class Wire(asyncio.Transport):
    """Takes what is written, up to what a client may leave unread."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1), "sockname": ("192.0.2.2", 4840)})

    def write(self, data: Any) -> None:  # Any: bytes-like
        assert len(data) <= 8 * 1024**2


def conversation() -> dict[str, bytes]:
    """One chunk for each kind of request, as a client without security sends them."""
    nodes = [_ua.NodeId(f"boiler/t{at}", 2) for at in range(3)]
    item = _ua.MonitoredItemCreateRequest(ua.ReadValueId(nodes[0], AttributeIds.Value))
    write = _ua.WriteValue(NodeId=nodes[0], AttributeId=AttributeIds.Value, Value=_ua.DataValue(_ua.Variant(True, ua.VariantType.Boolean)))
    path = _ua.BrowsePath(nodes[0], _ua.RelativePath([_ua.RelativePathElement(TargetName=_ua.QualifiedName("t1", 2))]))
    browse = _ua.BrowseDescription(NodeId=_ua.NodeId("boiler", 2), ReferenceTypeId=_ua.NodeId(33), NodeClassMask=0)
    requests: dict[str, Any] = {  # Any: asyncua's requests share no base
        "create": ua.CreateSessionRequest(),
        "activate": ua.ActivateSessionRequest(),
        "password": ua.ActivateSessionRequest(),
        "endpoints": ua.GetEndpointsRequest(),
        "read": ua.ReadRequest(Parameters=ua.ReadParameters(NodesToRead=[ua.ReadValueId(each, AttributeIds.Value) for each in nodes])),
        "write": ua.WriteRequest(Parameters=ua.WriteParameters(NodesToWrite=[write])),
        "browse": ua.BrowseRequest(Parameters=_ua.BrowseParameters(RequestedMaxReferencesPerNode=2, NodesToBrowse=[browse])),
        "next": ua.BrowseNextRequest(Parameters=_ua.BrowseNextParameters(ContinuationPoints=[bytes(7) + b"\1"])),
        "path": ua.TranslateBrowsePathsToNodeIdsRequest(Parameters=_ua.TranslateBrowsePathsToNodeIdsParameters([path])),
        "subscribe": ua.CreateSubscriptionRequest(Parameters=_ua.CreateSubscriptionParameters(RequestedPublishingInterval=1000.0)),
        "monitor": ua.CreateMonitoredItemsRequest(Parameters=_ua.CreateMonitoredItemsParameters(SubscriptionId=78, ItemsToCreate=[item])),
        "publish": ua.PublishRequest(Parameters=_ua.PublishParameters([_ua.SubscriptionAcknowledgement(78, 1)])),
        "call": ua.CallRequest(Parameters=_ua.CallParameters([_ua.CallMethodRequest()])),
        "close": ua.CloseSessionRequest(),
    }
    requests["activate"].Parameters.UserIdentityToken = ua.AnonymousIdentityToken(PolicyId=_ua.String("anonymous"))
    requests["password"].Parameters.UserIdentityToken = _ua.UserNameIdentityToken("password", "operator", b"x" * 256, "none")
    requests["create"].Parameters.RequestedSessionTimeout = 60000.0
    policy: Any = SecurityPolicyNone  # Any: it has no annotations
    line = SecureConnection(policy(), TransportLimits())
    opening = ua.OpenSecureChannelRequest()
    opening.Parameters.SecurityMode = ua.MessageSecurityMode.None_
    opening.Parameters.RequestedLifetime = _ua.UInt32(3600000)
    hello: Any = ua.MessageType.Hello  # Any: see _ua
    opn: Any = ua.MessageType.SecureOpen  # Any: see _ua
    found = {
        "hello": uatcp_to_binary(hello, _ua.Hello(ReceiveBufferSize=65535, SendBufferSize=65535, EndpointUrl="opc.tcp://x")),
        "open": line.message_to_binary(struct_to_binary(opening), message_type=opn, request_id=1),
    }
    line.security_token.ChannelId, line.security_token.TokenId = _ua.UInt32(CHANNEL), _ua.UInt32(13)
    for at, (name, request) in enumerate(requests.items()):
        found[name] = line.message_to_binary(struct_to_binary(request), request_id=2 + at)
    return found


async def feed(processor: _Processor, chunk: bytes) -> bool:
    """As a connection does it; False where it ends."""
    buffer = Buffer(chunk)
    processor._connection._peer_sequence_number = None
    try:
        return await processor.process(header_from_binary(buffer), buffer)
    except (*NONSENSE, InvalidSignature):
        return False


async def enter(shop: Shop, said: dict[str, bytes], upto: tuple[str, ...]) -> _Processor:
    shop.server._channel_id_counter = CHANNEL - 1
    processor = _Processor(shop, Wire(), "192.0.2.1")
    for name in upto:
        assert await feed(processor, said[name]), name
    return processor


@pytest.mark.parametrize("upto", [("hello", "open"), ("hello", "open", "create", "activate", "subscribe")], ids=["stranger", "client"])
async def test_no_request_does_more_than_end_its_connection(tmp_path: Path, upto: tuple[str, ...]) -> None:
    number, said = seed(), conversation()
    logging.getLogger("asyncua.server.uaprocessor").setLevel(logging.CRITICAL + 1)  # pytest would keep each of its errors, with all frames
    latest, clock, shops = Latest(), HastyClock(), asyncio.Queue[Shop]()
    latest.add(DEVICE)
    face = OpcuaFace(name="f", port=0, anonymous=True, writable=True, security=OpcuaSecurity(folder=str(tmp_path), policies=("none",)))
    gate = Gate(lambda name: None, lambda batch: None, clock)
    gateway = Gateway(group="g", name="g")
    work = asyncio.ensure_future(
        serve.session(face, gateway, latest, gate, Status("face", "f"), clock, lambda: None, opened=shops.put_nowait)
    )
    first = asyncio.ensure_future(shops.get())
    await asyncio.wait({work, first}, return_when=asyncio.FIRST_COMPLETED)
    shop = first.result()
    mutator = Mutator(number, list(said.values()), longest=8192)
    processor = await enter(shop, said, upto)
    ended = 0

    async def judge(chunk: bytes) -> None:
        nonlocal processor, ended
        size = int.from_bytes(chunk[4:8], "little")
        if size != len(chunk) or chunk[:3] not in (b"HEL", b"OPN", b"MSG", b"CLO"):
            chunk = b"MSGF" + len(chunk).to_bytes(4, "little") + chunk[8:]
        if len(chunk) <= 8:
            return
        going = await feed(processor, chunk)
        if shop.tasks:
            await asyncio.sleep(0)
        if not going or processor.session is None or not processor.session.is_activated():
            ended += 1
            await processor.close()  # type: ignore[no-untyped-call]  # asyncua's
            for session in list(shop.server._external_sessions.values()):
                await session.close_session(True)
            shop.server.subscription_service._sub_id_counter = 77
            processor = await enter(shop, said, upto)

    try:
        await run_in_loop("opcua face", mutator.make, judge, seed=number, count=SENT)
        assert ended > 10
        assert not work.done()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
