"""Subscriptions: who watches which tag, what changed, and what waits to be sent. In portions, so that nothing else waits for long.

Values of tags are looked at together, device by device, every ``refresh_s``; only what somebody watches and what differs is touched.
What waits for a client is bytes, and bounded; what it does not fetch in time makes room for what is newer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.internal_subscription import InternalSubscription
from asyncua.server.monitored_item_service import MonitoredItemService
from asyncua.server.subscription_service import SubscriptionService
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.ua_binary import struct_to_binary
from asyncua.ua.uaprotocol_auto import DataChangeFilter
from numpy.typing import NDArray

from gateway.config.faces import OpcuaFace
from gateway.faces.opcua.nodes import Nodes
from gateway.faces.opcua.numbers import extension, standard, status
from gateway.faces.opcua.tree import Leaf
from gateway.faces.opcua.values import Changes, Point, Readings, notification, ticks
from protocols.clock import Clock
from protocols.model import Device, Kind, Quality

PORTION: Final = 500
"""Values between two looks at what else there is to do; notifications in one message."""
MOST_BYTES: Final = 256 * 1024
"""Of the notifications in one message, unless one alone is longer."""
MOST_QUEUED: Final = 10
"""Values of one item that wait for the client."""
MOST_WAITING: Final = 4 * 1024**2
"""Bytes of one subscription that wait for the client; above it each item keeps its newest value alone."""
PUBLISHING_MS: Final = (100.0, 3_600_000.0)
_CHANGES: Final = standard(ObjectIds.DataChangeNotification_Encoding_DefaultBinary)
_NUMERIC: Final = frozenset(Kind) - {Kind.BOOL, Kind.STRING, Kind.BYTES}
_ABSENT: Final[Point] = (0, -1, -1)


@dataclass(slots=True, eq=False)
class Item:
    """A tag that a subscription watches."""

    items: Items
    id: int
    handle: int
    leaf: Leaf
    mode: ua.MonitoringMode
    room: int
    newest_first_out: bool
    trigger: ua.DataChangeTrigger = ua.DataChangeTrigger.StatusValue
    deadband: float = 0.0
    last: Point = _ABSENT

    def offer(self, point: Point, now: int) -> None:
        """Queue ``point`` where it differs as the client wants it to."""
        if self.mode is not ua.MonitoringMode.Reporting or not self._is_news(point):
            return
        self.last = point
        self.items.subscription.queue(self.id, notification(self.handle, self.leaf.tag.kind, point, now), self.room, self.newest_first_out)

    def _is_news(self, point: Point) -> bool:
        value, quality, time_ns = point
        before, before_quality, before_time = self.last
        if quality != before_quality:
            return True
        if self.trigger is ua.DataChangeTrigger.Status or quality >= Quality.BAD:
            return False
        if self.trigger is ua.DataChangeTrigger.StatusValueTimestamp and time_ns != before_time:
            return True
        if self.deadband and not isinstance(value, str | bytes) and not isinstance(before, str | bytes):
            return abs(value - before) > self.deadband
        return value != before and not (value != value and before != before)


@dataclass(slots=True)
class _Watched:
    """One device of which something is watched."""

    changes: Changes
    mask: NDArray[np.bool_]
    items: dict[int, list[Item]] = field(default_factory=dict)
    """By slot."""
    times: int = 0
    """How many want to know of a new time, too."""


class Sampler:
    """Looks at what is watched, and tells who watches."""

    def __init__(self, readings: Readings, clock: Clock, period_s: float) -> None:
        self._readings = readings
        self._clock = clock
        self._period_s = period_s
        self._watched: dict[Device, _Watched] = {}

    def add(self, item: Item) -> None:
        device = item.leaf.device
        watched = self._watched.get(device)
        if watched is None:
            watched = self._watched[device] = _Watched(Changes(device), np.zeros(len(device.tags), dtype=np.bool_))
        watched.items.setdefault(item.leaf.slot, []).append(item)
        watched.mask[item.leaf.slot] = True
        watched.times += item.trigger is ua.DataChangeTrigger.StatusValueTimestamp
        self.show(item)

    def remove(self, item: Item) -> None:
        watched = self._watched[item.leaf.device]
        at_slot = watched.items[item.leaf.slot]
        at_slot.remove(item)
        watched.times -= item.trigger is ua.DataChangeTrigger.StatusValueTimestamp
        if not at_slot:
            del watched.items[item.leaf.slot]
            watched.mask[item.leaf.slot] = False
        if not watched.items:
            del self._watched[item.leaf.device]

    def wants(self, item: Item, trigger: ua.DataChangeTrigger, deadband: float) -> None:
        """Another filter."""
        stamp = ua.DataChangeTrigger.StatusValueTimestamp
        self._watched[item.leaf.device].times += (trigger is stamp) - (item.trigger is stamp)
        item.trigger, item.deadband = trigger, deadband

    def show(self, item: Item) -> None:
        """Its value as it is now."""
        item.offer(self._readings.point(item.leaf.device, item.leaf.slot), ticks(self._clock.time_ns()))

    async def run(self) -> None:
        due = self._clock.monotonic()
        while True:
            due = max(due + self._period_s, self._clock.monotonic())
            await self._clock.sleep_until(due)
            for device in list(self._watched):
                await self._look(device)

    async def _look(self, device: Device) -> None:
        watched = self._watched.get(device)
        if watched is None:
            return
        now = ticks(self._clock.time_ns())
        for rows, batch in watched.changes.since_last(self._readings.batches(device), watched.mask, times=watched.times > 0):
            for at in range(0, len(rows), PORTION):
                part = rows[at : at + PORTION]
                columns = (batch.tag[part], batch.value[part], batch.quality[part], batch.time_ns[part])
                for slot, value, quality, time_ns in zip(*(column.tolist() for column in columns), strict=True):
                    for item in watched.items.get(slot, ()):
                        item.offer((value, quality, time_ns), now)
                await asyncio.sleep(0)


class Items(MonitoredItemService):
    """What one subscription watches: tags by the sampler, everything else as asyncua does."""

    def __init__(self, subscription: Subscription, nodes: Nodes, sampler: Sampler) -> None:
        super().__init__(subscription, nodes)
        self.subscription = subscription
        self._nodes = nodes
        self._sampler = sampler
        self._own: dict[int, Item] = {}

    def __len__(self) -> int:
        return len(self._own) + len(self._monitored_items)

    async def create_monitored_items(self, params: ua.CreateMonitoredItemsParameters) -> list[ua.MonitoredItemCreateResult]:
        found: list[ua.MonitoredItemCreateResult] = []
        for at, wish in enumerate(params.ItemsToCreate):
            if at % 100 == 99:
                await asyncio.sleep(0)
            if not self.subscription.has_room():
                found.append(_refused(StatusCodes.BadTooManyMonitoredItems))
            elif wish.ItemToMonitor.AttributeId == AttributeIds.EventNotifier:
                found.append(_refused(StatusCodes.BadNotSupported))
            else:
                found.append(await self._create_data_change_monitored_item(wish))
        return found

    async def _create_data_change_monitored_item(self, params: ua.MonitoredItemCreateRequest) -> ua.MonitoredItemCreateResult:
        wanted, parameters = params.ItemToMonitor, params.RequestedParameters
        if wanted.IndexRange:
            return _refused(StatusCodes.BadIndexRangeNoData)
        leaf = self._nodes.leaf(wanted.NodeId) if wanted.AttributeId == AttributeIds.Value else None
        if leaf is None:
            if _is_none(parameters.Filter):
                parameters.Filter = None
            elif not isinstance(parameters.Filter, DataChangeFilter):
                return _refused(StatusCodes.BadMonitoredItemFilterUnsupported)
            return await super()._create_data_change_monitored_item(params)
        wish = _filter(parameters.Filter, leaf)
        if isinstance(wish, int):
            return _refused(wish)
        result, _ = self._make_monitored_item_common(params)
        result.RevisedSamplingInterval = self._nodes.period_ms
        item = self._own[result.MonitoredItemId] = Item(
            self,
            result.MonitoredItemId,
            parameters.ClientHandle,
            leaf,
            params.MonitoringMode,
            result.RevisedQueueSize,
            not parameters.DiscardOldest,
            *wish,
        )
        self._sampler.add(item)
        return result

    def _revise_queue_size(self, requested: int) -> int:
        return max(1, min(int(requested), MOST_QUEUED))

    def modify_monitored_items(self, params: ua.ModifyMonitoredItemsParameters) -> list[ua.MonitoredItemModifyResult]:
        return [self._modify_monitored_item(one) for one in params.ItemsToModify]

    def _modify_monitored_item(self, params: ua.MonitoredItemModifyRequest) -> ua.MonitoredItemModifyResult:
        result, parameters = ua.MonitoredItemModifyResult(), params.RequestedParameters
        item = self._own.get(params.MonitoredItemId)
        if item is None:
            if params.MonitoredItemId in self._monitored_items:
                return super()._modify_monitored_item(params)
            result.StatusCode = status(StatusCodes.BadMonitoredItemIdInvalid)
            return result
        wish = _filter(parameters.Filter, item.leaf)
        if isinstance(wish, int):
            result.StatusCode = status(wish)
            return result
        self._sampler.wants(item, *wish)
        item.handle, item.room, item.newest_first_out = (
            parameters.ClientHandle,
            self._revise_queue_size(parameters.QueueSize),
            not parameters.DiscardOldest,
        )
        result.RevisedSamplingInterval, result.RevisedQueueSize = self._nodes.period_ms, item.room
        return result

    async def _set_monitoring_mode(self, mode: ua.MonitoringMode, mid: int) -> ua.StatusCode:
        item = self._own.get(mid)
        if item is None:
            return await super()._set_monitoring_mode(mode, mid)
        before, item.mode = item.mode, mode
        if mode is ua.MonitoringMode.Reporting and before is not mode:
            item.last = _ABSENT
            self._sampler.show(item)
        return ua.StatusCode()

    def delete_all_monitored_items(self) -> None:
        self.delete_monitored_items([*self._own, *self._monitored_items])

    def _delete_monitored_items(self, mid: int) -> ua.StatusCode:
        self.subscription.forget(mid)
        item = self._own.pop(mid, None)
        if item is None:
            return super()._delete_monitored_items(mid)
        self._sampler.remove(item)
        return ua.StatusCode()


def _refused(code: int) -> ua.MonitoredItemCreateResult:
    result = ua.MonitoredItemCreateResult()
    result.StatusCode = status(code)
    return result


def _is_none(wish: Any) -> bool:  # Any: whatever the client sent
    return wish is None or (isinstance(wish, ua.ExtensionObject) and wish.Body is None)


def _filter(wish: Any, leaf: Leaf) -> tuple[ua.DataChangeTrigger, float] | int:  # Any: whatever the client sent
    """Trigger and deadband, or the code of why not."""
    if _is_none(wish):
        return ua.DataChangeTrigger.StatusValue, 0.0
    if not isinstance(wish, DataChangeFilter):
        return int(StatusCodes.BadMonitoredItemFilterUnsupported)
    trigger = ua.DataChangeTrigger(wish.Trigger)
    if wish.DeadbandType == ua.DeadbandType.None_:
        return trigger, 0.0
    if wish.DeadbandType != ua.DeadbandType.Absolute or leaf.tag.kind not in _NUMERIC:
        return int(StatusCodes.BadMonitoredItemFilterUnsupported)  # a percentage would need EURange (OPC 10000-8, 7.2)
    if not 0 <= wish.DeadbandValue < float("inf"):
        return int(StatusCodes.BadDeadbandFilterInvalid)
    return trigger, wish.DeadbandValue


class Subscription(InternalSubscription):
    """One subscription; what waits for the client is encoded already."""

    def __init__(self, *args: Any, nodes: Nodes, sampler: Sampler, service: Subscriptions, **more: Any) -> None:  # Any: asyncua's own
        super().__init__(*args, **more)
        self._service = service
        self._waiting: dict[int, deque[bytes]] = {}
        self._bytes = 0
        self._sending = False
        self.items = Items(self, nodes, sampler)
        self.monitored_item_srv = self.items

    def has_room(self) -> bool:
        return self._service.has_room(self.session_id)

    def queue(self, mid: int, what: bytes, room: int, newest_first_out: bool) -> None:
        waiting = self._waiting.setdefault(mid, deque())
        if self._bytes > MOST_WAITING:
            room = 1
        waiting.append(what)
        self._bytes += len(what)
        while len(waiting) > room:
            if newest_first_out and len(waiting) > 1:
                self._bytes -= len(waiting[-2])
                del waiting[-2]
            else:
                self._bytes -= len(waiting.popleft())

    def forget(self, mid: int) -> None:
        self._bytes -= sum(len(each) for each in self._waiting.pop(mid, ()))

    async def enqueue_datachange_event(self, mid: int, eventdata: ua.MonitoredItemNotification, maxsize: int) -> None:
        self.queue(mid, struct_to_binary(eventdata), MOST_QUEUED, False)

    def has_published_results(self) -> bool:
        return (self._publishing_enabled and bool(self._waiting)) or super().has_published_results()

    async def publish_results(self, requestdata: Any = None) -> bool:  # Any: asyncua's own
        published = await super().publish_results(requestdata)
        more = published
        while more and self._waiting and self._publishing_enabled and not self._closing:
            await asyncio.sleep(0)
            more = await super().publish_results()
        return published

    def _pop_publish_result(self) -> ua.PublishResult:
        result = super()._pop_publish_result()
        result.MoreNotifications = bool(self._waiting) and self._publishing_enabled
        return result

    def _pop_triggered_datachanges(self, result: ua.PublishResult) -> None:
        parts: list[bytes] = []
        size = 0
        while self._waiting and len(parts) < PORTION and size < MOST_BYTES:
            mid = next(iter(self._waiting))
            waiting = self._waiting[mid]
            while waiting and len(parts) < PORTION and size < MOST_BYTES:
                parts.append(waiting.popleft())
                size += len(parts[-1])
            if not waiting:
                del self._waiting[mid]
        if parts:
            self._bytes -= size
            body = len(parts).to_bytes(4, "little") + b"".join(parts) + b"\xff\xff\xff\xff"  # no diagnostics
            result.NotificationMessage.NotificationData.append(extension(_CHANGES, body))


class Subscriptions(SubscriptionService):
    """All subscriptions of a face."""

    def __init__(self, server: Any, nodes: Nodes, sampler: Sampler, face: OpcuaFace) -> None:  # Any: an InternalServer, which makes this
        super().__init__(nodes, iserver=server)
        self._server = server
        self._nodes = nodes
        self._sampler = sampler
        self._face = face

    def has_room(self, session_id: ua.NodeId) -> bool:
        return sum(len(each.items) for each in self.of(session_id)) < self._face.max_items

    def of(self, session_id: ua.NodeId) -> list[Subscription]:
        return [each for each in self.subscriptions.values() if each.session_id == session_id and isinstance(each, Subscription)]

    async def create_subscription(
        self, params: ua.CreateSubscriptionParameters, callback: Any, session_id: ua.NodeId, request_callback: Any = None
    ) -> ua.CreateSubscriptionResult:  # Any: asyncua's own
        if len(self.of(session_id)) >= self._face.max_subscriptions:
            raise ServiceError(StatusCodes.BadTooManySubscriptions)
        least, most = PUBLISHING_MS
        wanted = params.RequestedPublishingInterval
        self._sub_id_counter += 1
        result = ua.CreateSubscriptionResult(
            SubscriptionId=self._sub_id_counter,
            RevisedPublishingInterval=max(least, min(wanted, most)) if wanted == wanted else least,
            RevisedMaxKeepAliveCount=self._clamp_keep_alive_count(params.RequestedMaxKeepAliveCount),
        )
        lifetime = max(params.RequestedLifetimeCount, 3 * result.RevisedMaxKeepAliveCount)  # OPC 10000-4, 5.14.2.2
        result.RevisedLifetimeCount = self._clamp_lifetime_count(lifetime)
        made = Subscription(
            result,
            self.aspace,
            callback,
            session_id,
            request_callback=request_callback,
            delete_callback=lambda: self.subscriptions.pop(result.SubscriptionId, None),
            no_acks_limit=self._server.max_unacked_messages_per_subscription,
            max_queue_size=MOST_QUEUED,
            publishing_enabled=params.PublishingEnabled,
            nodes=self._nodes,
            sampler=self._sampler,
            service=self,
        )
        await made.start()
        self.subscriptions[result.SubscriptionId] = made
        return result
