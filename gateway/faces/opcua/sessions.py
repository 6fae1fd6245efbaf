"""What a client of a face may do once it is in: read, browse, watch, and write, which is a command. In portions.

A session of asyncua does not ask whose a subscription is, has no continuation points and lets an administrator change the address
space; ours does, has them, and has no administrator.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.internal_session import InternalSession
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from gateway.commands import Gate
from gateway.config.faces import OpcuaFace
from gateway.faces.opcua.nodes import Nodes
from gateway.faces.opcua.numbers import standard, status
from gateway.faces.opcua.tree import Leaf
from gateway.faces.opcua.values import TYPE_OF
from protocols.clock import Clock
from protocols.model import Command, Outcome, OutcomeState

MOST_OPERATIONS: Final = 1000
"""Of one request; told to clients as the operation limits (OPC 10000-5, 6.3.11)."""
BREATH: Final = 50
"""Nodes between two looks at what else there is to do."""
MOST_REFERENCES: Final = 500
"""In one answer to a browse; the rest comes by continuation points."""
MOST_POINTS: Final = 10
MOST_ANSWER: Final = 4 * 1024**2
"""Bytes of the values in one answer."""
_SC: Final = StatusCodes
_STATE: Final[dict[OutcomeState, int]] = {
    OutcomeState.VERIFIED: _SC.Good,
    OutcomeState.MISMATCH: _SC.BadDeviceFailure,
    OutcomeState.EXPIRED: _SC.BadTimeout,
    OutcomeState.FAILED: _SC.BadNoCommunication,
}


@dataclass(frozen=True)
class Desk:
    """What every session of a face works with."""

    face: OpcuaFace
    nodes: Nodes
    gate: Gate
    clock: Clock


class Session(InternalSession):
    """One client's."""

    def __init__(self, *args: Any, desk: Desk, **more: Any) -> None:  # Any: asyncua's own
        super().__init__(*args, **more)
        self._desk = desk
        self._points: dict[bytes, tuple[ua.BrowseDescription, int, int]] = {}
        """What is left to browse, from which reference on, at most how many in an answer."""
        self._numbers = itertools.count(1)
        self.certificate: bytes | None = None
        """Of the program that made it."""
        self.accepted: bytes | None = None
        """The user's certificate, where it is trusted."""
        self.is_encrypted = False
        """Whether its messages are; a password that comes otherwise must be encrypted itself."""

    @property
    def client(self) -> str:
        """For people and records."""
        peer: Any = self.name  # Any: what asyncua calls a name is an address
        host = str(peer[0]) if isinstance(peer, tuple) else str(peer)
        name = getattr(self.user, "name", None)
        return f"{name} at {host}" if name else host

    async def create_session(self, params: ua.CreateSessionParameters, sockname: tuple[str, int] | None = None) -> ua.CreateSessionResult:
        result = await super().create_session(params, sockname)
        result.MaxRequestMessageSize = self._desk.face.max_message_bytes
        return result

    # ---- reading

    async def read(self, params: ua.ReadParameters) -> list[ua.DataValue]:
        found: list[ua.DataValue] = []
        size = 0
        for at, wish in enumerate(params.NodesToRead):
            if at % BREATH == BREATH - 1:
                await asyncio.sleep(0)
            if wish.IndexRange:
                value = ua.DataValue(StatusCode=status(_SC.BadIndexRangeNoData))
            else:
                value = self._desk.nodes.read_attribute_value(wish.NodeId, wish.AttributeId)
            held = value.Value.Value if value.Value is not None else None
            size += len(held) if isinstance(held, str | bytes) else 0
            if size > MOST_ANSWER:
                value = ua.DataValue(StatusCode=status(_SC.BadEncodingLimitsExceeded))
            found.append(value)
        return found

    # ---- writing

    async def write(self, params: ua.WriteParameters) -> list[ua.StatusCode]:
        """One after the other; each is answered when its outcome is known."""
        return [status(await self._write(wish)) for wish in params.NodesToWrite]

    async def _write(self, wish: ua.WriteValue) -> int:
        leaf = self._desk.nodes.leaf(wish.NodeId)
        if objection := self._objection(wish, leaf):
            return objection
        assert leaf is not None  # else there is an objection
        face, clock = self._desk.face, self._desk.clock
        value: Any = wish.Value.Value.Value if wish.Value.Value is not None else None  # Any: of the tag's kind, see the objection
        deadline_ns = clock.time_ns() + int(face.command_timeout_s * 1e9)
        command = Command(id=str(uuid.uuid4()), device=leaf.device.name, tag=leaf.tag.name, value=value, deadline_ns=deadline_ns)
        try:
            async with asyncio.timeout(face.command_timeout_s + 1):
                outcome = await self._desk.gate.carry_out(command, source=f"face {face.name}, {self.client}")
        except TimeoutError:
            return int(_SC.BadTimeout)
        return code_of(outcome)

    def _objection(self, wish: ua.WriteValue, leaf: Leaf | None) -> int:
        """Why this cannot be, whatever the field says; 0 if it may go."""
        if leaf is None:
            return int(_SC.BadNotWritable if wish.NodeId in self._desk.nodes else _SC.BadNodeIdUnknown)
        if wish.AttributeId != AttributeIds.Value or not (leaf.tag.writable and self._desk.face.writable):
            return int(_SC.BadNotWritable)
        held = wish.Value.Value
        status = wish.Value.StatusCode
        if wish.IndexRange or (status is not None and status.value):
            return int(_SC.BadWriteNotSupported)
        kind = leaf.tag.kind
        if held is None or held.VariantType is not TYPE_OF[kind] or held.is_array or held.Value is None:
            return int(_SC.BadTypeMismatch)
        return 0

    # ---- browsing

    async def browse(self, params: ua.BrowseParameters) -> list[ua.BrowseResult]:
        asked = int(params.RequestedMaxReferencesPerNode or 0)
        most = min(asked or MOST_REFERENCES, MOST_REFERENCES)
        found: list[ua.BrowseResult] = []
        for wish in params.NodesToBrowse:
            await asyncio.sleep(0)
            found.append(await self._browsed(wish, 0, most))
        return found

    async def browse_on(self, params: ua.BrowseNextParameters) -> list[ua.BrowseResult]:
        found: list[ua.BrowseResult] = []
        for point in params.ContinuationPoints:
            left = self._points.pop(bytes(point or b""), None)
            if left is None:
                found.append(ua.BrowseResult(StatusCode=status(_SC.BadContinuationPointInvalid)))
            elif params.ReleaseContinuationPoints:
                found.append(ua.BrowseResult())
            else:
                found.append(await self._browsed(*left))
        return found

    async def _browsed(self, wish: ua.BrowseDescription, first: int, most: int) -> ua.BrowseResult:
        nodes = self._desk.nodes
        node = nodes.get(wish.NodeId)
        if node is None:
            return ua.BrowseResult(StatusCode=status(_SC.BadNodeIdUnknown))
        kinds = self._kinds(wish)
        if kinds is not None and not kinds:
            return ua.BrowseResult(StatusCode=status(_SC.BadReferenceTypeIdInvalid))
        result = ua.BrowseResult()
        references = node.references
        for at in range(first, len(references)):
            if at % (4 * BREATH) == 4 * BREATH - 1:
                await asyncio.sleep(0)
            one = references[at]
            if not _suits(one, wish, kinds):
                continue
            if len(result.References) == most:
                result.ContinuationPoint = self._keep(wish, at, most)
                break
            result.References.append(one)
        return result

    def _keep(self, wish: ua.BrowseDescription, at: int, most: int) -> bytes:
        while len(self._points) >= MOST_POINTS:
            del self._points[next(iter(self._points))]
        point = next(self._numbers).to_bytes(8, "big")
        self._points[point] = (wish, at, most)
        return point

    def _kinds(self, wish: ua.BrowseDescription) -> set[ua.NodeId] | None:
        """Reference types that are wanted; None for all, empty where there is no such type."""
        if wish.ReferenceTypeId.is_null():
            return None
        if wish.ReferenceTypeId not in self._desk.nodes:
            return set()
        return {wish.ReferenceTypeId, *(self._subtypes(wish.ReferenceTypeId) if wish.IncludeSubtypes else ())}

    def _subtypes(self, kind: ua.NodeId) -> Iterator[ua.NodeId]:
        node = self._desk.nodes.get(kind)
        for one in node.references if node is not None else ():
            if one.IsForward and one.ReferenceTypeId == _SUBTYPE:
                yield one.NodeId
                yield from self._subtypes(one.NodeId)

    async def translate_browsepaths_to_nodeids(self, params: list[ua.BrowsePath]) -> list[ua.BrowsePathResult]:
        found: list[ua.BrowsePathResult] = []
        for path in params:
            await asyncio.sleep(0)
            found.append(await self._translated(path))
        return found

    async def _translated(self, path: ua.BrowsePath) -> ua.BrowsePathResult:
        if path.StartingNode not in self._desk.nodes:
            return ua.BrowsePathResult(StatusCode=status(_SC.BadNodeIdUnknown))
        here = [path.StartingNode]
        for element in path.RelativePath.Elements[:32]:
            wish = ua.BrowseDescription(
                BrowseDirection=ua.BrowseDirection.Inverse if element.IsInverse else ua.BrowseDirection.Forward,
                ReferenceTypeId=element.ReferenceTypeId,
                IncludeSubtypes=element.IncludeSubtypes,
            )
            kinds = self._kinds(wish)
            there: list[ua.NodeId] = []
            for nodeid in here[:10]:
                node = self._desk.nodes.get(nodeid)
                for at, one in enumerate(node.references if node is not None else ()):
                    if at % (4 * BREATH) == 4 * BREATH - 1:
                        await asyncio.sleep(0)
                    if one.BrowseName == element.TargetName and _suits(one, wish, kinds):
                        there.append(one.NodeId)
            here = there
        if not here or not path.RelativePath.Elements:
            return ua.BrowsePathResult(StatusCode=status(_SC.BadNoMatch))
        all_of_it = ua.UInt32(0xFFFFFFFF)  # nothing of the path is left (OPC 10000-4, 5.9.4.2)
        return ua.BrowsePathResult(Targets=[ua.BrowsePathTarget(TargetId=each, RemainingPathIndex=all_of_it) for each in here])

    # ---- watching: each its own

    def _is_mine(self, subscription: int) -> bool:
        found = self.subscription_service.subscriptions.get(subscription)
        return found is not None and found.session_id == self.session_id

    def _mine(self, subscription: int) -> None:
        if not self._is_mine(subscription):
            raise ServiceError(_SC.BadSubscriptionIdInvalid)

    async def create_monitored_items(self, params: ua.CreateMonitoredItemsParameters) -> list[ua.MonitoredItemCreateResult]:
        self._mine(params.SubscriptionId)
        return await super().create_monitored_items(params)

    async def modify_monitored_items(self, params: ua.ModifyMonitoredItemsParameters) -> list[ua.MonitoredItemModifyResult]:
        self._mine(params.SubscriptionId)
        return await super().modify_monitored_items(params)

    async def delete_monitored_items(self, params: ua.DeleteMonitoredItemsParameters) -> list[ua.StatusCode]:
        self._mine(params.SubscriptionId)
        return await super().delete_monitored_items(params)

    async def set_monitoring_mode(self, params: ua.SetMonitoringModeParameters) -> list[ua.StatusCode]:
        self._mine(params.SubscriptionId)
        return await super().set_monitoring_mode(params)

    async def set_publishing_mode(self, params: ua.SetPublishingModeParameters) -> list[ua.StatusCode]:
        for each in params.SubscriptionIds:
            self._mine(each)
        return await super().set_publishing_mode(params)

    def modify_subscription(self, params: ua.ModifySubscriptionParameters) -> ua.ModifySubscriptionResult:
        self._mine(params.SubscriptionId)
        return super().modify_subscription(params)

    async def delete_subscriptions(self, ids: list[int]) -> list[ua.StatusCode]:
        mine = [each for each in ids if self._is_mine(each)]
        done = dict(zip(mine, await super().delete_subscriptions(mine), strict=True))
        return [done.get(each, status(_SC.BadSubscriptionIdInvalid)) for each in ids]

    def republish(self, params: ua.RepublishParameters) -> ua.NotificationMessage:
        self._mine(params.SubscriptionId)
        kept = self.subscription_service.subscriptions[params.SubscriptionId]._not_acknowledged_results
        if params.RetransmitSequenceNumber not in kept:
            raise ServiceError(_SC.BadMessageNotAvailable)
        return super().republish(params)

    def publish(self, acks: Any = None) -> tuple[int, list[ua.StatusCode]]:  # Any: asyncua's own
        mine = [each for each in self.subscription_service.subscriptions.values() if each.session_id == self.session_id]
        if not mine:
            raise ServiceError(_SC.BadNoSubscription)
        results: list[ua.StatusCode] = []
        for ack in acks or ():
            known = self._is_mine(ack.SubscriptionId)
            if known:
                self.subscription_service.subscriptions[ack.SubscriptionId].publish([ack.SequenceNumber])
            results.append(status(_SC.Good if known else _SC.BadSubscriptionIdInvalid))
        return len(mine), results

    async def transfer_subscriptions(
        self, params: ua.TransferSubscriptionsParameters, callback: Any = None
    ) -> list[ua.TransferResult]:  # Any: asyncua's own
        """Not offered: a session that is taken up again has its subscriptions, and asyncua would lose those that are moved."""
        return [ua.TransferResult(StatusCode=status(_SC.BadSubscriptionIdInvalid)) for _ in params.SubscriptionIds]


_SUBTYPE: Final = standard(ObjectIds.HasSubtype)


def _suits(one: ua.ReferenceDescription, wish: ua.BrowseDescription, kinds: set[ua.NodeId] | None) -> bool:
    if wish.BrowseDirection != ua.BrowseDirection.Both and one.IsForward != (wish.BrowseDirection == ua.BrowseDirection.Forward):
        return False
    if kinds is not None and one.ReferenceTypeId not in kinds:
        return False
    return not wish.NodeClassMask or bool(wish.NodeClassMask & one.NodeClass)


def code_of(outcome: Outcome) -> int:
    """How an outcome is answered. Good where the value was read back from the field, and nowhere else."""
    if outcome.state is OutcomeState.REFUSED or outcome.by_device:
        return int(_SC.BadOutOfRange if "range" in outcome.detail else _SC.BadRequestNotAllowed)
    return int(_STATE[outcome.state])
