"""A cloud: the far end of the delivery, written against the documents alone, on paho and Google's protobuf.

It shares no code with ``gateway/consume``: what a message means is read off ``gateway/uplink/README.md`` and the Sparkplug
specification, so a fault test that asks this cloud does not ask the gateway about itself. It runs in a thread of its own,
comes back by itself after every cut, asks for births that it needs, and confirms a ledger mark on
``<ledger topic>/ack`` only when everything that the mark names has come unharmed.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from types import TracebackType
from typing import Any, Final, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from protocols.sparkplug.sparkplug_b_pb2 import Payload

MAGIC: Final = b"HF\x01"
LANES: Final = ("events", "telemetry")
ASK_EVERY_S: Final = 2.0
Name = tuple[str, int, int]
"""Lane, epoch, seq: what tells one record from every other."""


@dataclass(frozen=True, slots=True)
class Row:
    """One value of a record; ``value`` is None where it is null."""

    tag: str
    value: int | float | bool | str | bytes | None
    status: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """One record, as it came. The same record may come again."""

    device: str
    name: Name
    historical: bool
    rows: tuple[Row, ...]
    at: float
    """Monotonic seconds."""


@dataclass(frozen=True, slots=True)
class Absence:
    """Records that the gateway says it can never deliver."""

    lane: str
    epoch: int
    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class Told:
    """What a mark says exists: everything from ``first`` to ``last``, and nothing between ``previous`` and ``first``."""

    lane: str
    epoch: int
    first: int
    last: int
    previous: tuple[int, int] | None


class Cloud:
    """``with Cloud(group, gateway, port, oracle) as cloud``: ``oracle`` takes each Arrival, Absence and Told, in order."""

    def __init__(
        self,
        group: str,
        gateway: str,
        port: int,
        oracle: Callable[[Arrival | Absence | Told], None],
        *,
        acknowledge: bool = True,
    ) -> None:
        self._group, self._gateway, self._oracle, self._acknowledge = group, gateway, oracle, acknowledge
        self._ledger = f"holdfast/{group}/{gateway}/ledger"
        self._births: dict[str, dict[int, str]] = {}
        self._window: defaultdict[int, list[bytes]] = defaultdict(list)
        self._had: set[Name] = set()
        self._asked_at = float("-inf")
        self.malformed: list[str] = []
        """What could not be understood; must stay empty. Errors of this class itself land here too."""
        self.unread = 0
        """Messages that came before the birth that explains them; the gateway has to send them again."""
        self.connected = 0
        self._client = paho.Client(CallbackAPIVersion.VERSION2, f"cloud-{group}-{gateway}", protocol=paho.MQTTv5)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async("127.0.0.1", port, keepalive=10)

    def __enter__(self) -> Self:
        self._client.loop_start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    # ---- the thread of paho

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        self.connected += 1
        self._window.clear()
        client.subscribe([(f"spBv1.0/{self._group}/+/{self._gateway}/#", 0), (self._ledger, 1)])
        self._ask_for_births()

    def _on_message(self, client: paho.Client, _: object, message: paho.MQTTMessage) -> None:
        try:
            if message.topic == self._ledger:
                self._mark(json.loads(message.payload))
                return
            verb, device = (*message.topic.split("/")[2:3], *message.topic.split("/")[4:5], "")[:2]
            self._sparkplug(verb, device, bytes(message.payload))
        except Exception as error:  # noqa: BLE001 - a thread of paho would swallow it; here every test sees it
            self.malformed.append(f"{message.topic}: {error!r}")

    def _sparkplug(self, verb: str, device: str, data: bytes) -> None:
        if verb == "NBIRTH":
            self._births.clear()
        elif verb == "DBIRTH":
            self._births[device] = {metric.alias: metric.name for metric in Payload.FromString(data).metrics if metric.HasField("alias")}
        elif verb == "DDATA":
            self._data(device, data)

    def _data(self, device: str, data: bytes) -> None:
        payload, names = Payload.FromString(data), self._births.get(device, {})
        window, lane, epoch, part, parts, seqs = read_stamp(payload.body)
        if parts != 1:
            raise ValueError(f"part {part} of {parts}: no test sends records that large")
        self._window[window].append(data)
        if any(metric.alias not in names for metric in payload.metrics):
            self.unread += 1
            self._ask_for_births()
            return
        now = time.monotonic()
        records = _split([_row(names[metric.alias], metric) for metric in payload.metrics], len(seqs))
        historical = any(metric.is_historical for metric in payload.metrics)
        for seq, rows in zip(seqs, records, strict=True):
            self._had.add((lane, epoch, seq))
            self._oracle(Arrival(device, (lane, epoch, seq), historical, rows, now))

    def _mark(self, mark: dict[str, Any]) -> None:  # Any: JSON
        lane, epoch, first, last = mark["lane"], mark["epoch"], mark["first"], mark["last"]
        absent: set[int] = set()
        for span in mark.get("lost", ()):
            absent.update(range(span["first"], span["last"] + 1))
            self._oracle(Absence(lane, epoch, span["first"], span["last"], span["reason"]))
        previous = mark.get("previous")
        self._oracle(Told(lane, epoch, first, last, tuple(previous) if previous else None))
        messages = self._window.pop(mark["window"], [])
        sums = sum(int.from_bytes(blake2b(message, digest_size=8).digest(), "big") for message in messages) % 2**64
        complete = all((lane, epoch, seq) in self._had or seq in absent for seq in range(first, last + 1))
        if self._acknowledge and complete and (len(messages), f"{sums:016x}") == (mark["messages"], mark["digest"]):
            answer = {key: mark[key] for key in ("v", "window", "lane", "epoch", "first", "last", "digest")}
            self._client.publish(f"{self._ledger}/ack", json.dumps(answer), qos=1)

    def _ask_for_births(self) -> None:
        now = time.monotonic()
        if now - self._asked_at < ASK_EVERY_S:
            return
        self._asked_at = now
        command = Payload(timestamp=time.time_ns() // 1_000_000)
        wish = command.metrics.add()
        wish.name, wish.datatype, wish.boolean_value = "Node Control/Rebirth", 11, True
        self._client.publish(f"spBv1.0/{self._group}/NCMD/{self._gateway}", command.SerializeToString())


def read_stamp(body: bytes) -> tuple[int, str, int, int, int, list[int]]:
    """Window, lane, epoch, part, parts and seqs of a stamp. Raises ValueError."""
    if not body.startswith(MAGIC):
        raise ValueError(f"no stamp: {body[:8].hex()}")
    numbers, number, shift = [], 0, 0
    for byte in body[len(MAGIC) :]:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            number, shift = 0, 0
    window, lane, epoch, part, parts, count, *steps = numbers
    if count != len(steps):
        raise ValueError(f"a stamp that counts {count} records and names {len(steps)}")
    return window, LANES[lane], epoch, part, parts, list(accumulate(steps))


def _row(tag: str, metric: Any) -> Row:  # Any: protobuf makes its classes at run time
    status = 0
    for key, value in zip(metric.properties.keys, metric.properties.values, strict=True):
        if key == "StatusCode":
            status = value.long_value  # a UInt32: see protocols/sparkplug/README.md
    kind = metric.WhichOneof("value")
    return Row(tag, None if metric.is_null or kind is None else getattr(metric, kind), status, metric.timestamp)


def _split(rows: list[Row], records: int) -> list[tuple[Row, ...]]:
    """A message may hold several records, one behind the other: a new one begins where a tag comes again."""
    parts: list[list[Row]] = []
    seen: set[str] = set()
    for row in rows:
        if not parts or row.tag in seen:
            parts.append([])
            seen.clear()
        seen.add(row.tag)
        parts[-1].append(row)
    if len(parts) != records:
        raise ValueError(f"{len(parts)} records of values, but the stamp names {records}")
    return [tuple(part) for part in parts]
