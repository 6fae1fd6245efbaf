"""One edge node's session as data: sequence numbers, aliases, who is born with which metrics, and the messages to say.

Nothing is sent here: each method returns the message that is due, and the state moves on as if it had been sent. The
order is the caller's duty: ``connect``, then ``nbirth``, then a ``dbirth`` for each device before its first ``ddata``.

Aliases stay the same as long as the process lives, so that a host that missed a birth is not misled: an alias names one
metric with one kind, for ever. A metric whose kind has changed since a record was written is delivered beside the
current one, as ``name@kind``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

from protocols.model import Batch, Device, Kind, Quality, Tag
from protocols.sparkplug import metric
from protocols.sparkplug.metric import Value
from protocols.sparkplug.template import MAX_ALIAS, Template, assemble
from protocols.sparkplug.topics import Verb, topic

FIRST_ALIAS: Final = 128
"""From here to 16383 an alias takes two bytes, so that the prepared rows of a device are of one length."""
BDSEQ: Final = "bdSeq"
REBIRTH: Final = "Node Control/Rebirth"
MAX_TEMPLATES: Final = 16
"""Device objects of one device that are remembered at once."""


@dataclass(frozen=True, slots=True)
class Publish:
    """A message that is due. ``seq`` messages go out with QoS 0, an NDEATH as a will with QoS 1; none is retained."""

    topic: str
    payload: bytes


@dataclass(slots=True)
class Born:
    """One device as the hosts know it since its DBIRTH."""

    shapes: list[Device]
    """The configurations that the birth was made of, the current one first."""
    metrics: dict[str, tuple[Kind, str]] = field(default_factory=dict)
    """Kind and unit by metric name."""
    templates: dict[Device, Template] = field(default_factory=dict)
    """By Device object. The journal may give equal configurations as different objects."""
    alive: bool = True
    upto_ns: int = 0
    """The newest time in the birth: data up to here is history."""


class EdgeNode:
    """The session of the edge node ``group``/``name``. ``tags`` are its own metrics, besides the two that must be."""

    def __init__(self, group: str, name: str, tags: Sequence[Tag] = ()) -> None:
        self.group = group
        self.name = name
        self.bdseq = 0
        self.device = Device(connection="", name="", tags=tuple(tags))
        self._seq = 255
        self._aliases: dict[tuple[str, str, Kind], int] = {}
        self._metrics: dict[int, tuple[str, str, Kind]] = {}
        """Device, name and kind by alias."""
        self._born: dict[str, Born] = {}
        self._topics: dict[tuple[Verb, str], str] = {}
        self._own = Template(self.device, [self._alias("", tag.name, tag.kind) for tag in self.device.tags])

    def topic(self, verb: Verb, device: str = "") -> str:
        text = self._topics.get((verb, device))
        if text is None:
            text = self._topics[verb, device] = topic(self.group, verb, self.name, device)
        return text

    # ---- births and deaths of the node

    def connect(self, bdseq: int) -> Publish:
        """A new CONNECT with the will to register: the NDEATH of the session that begins (5.4; no seq, bdSeq alone)."""
        self.bdseq = bdseq % 256
        self._born.clear()
        return self.ndeath()

    def ndeath(self, time_ns: int | None = None) -> Publish:
        """The NDEATH of this session. Nobody is alive after it."""
        self._born.clear()
        number = metric.node_metric(BDSEQ, Kind.INT64, self.bdseq, time_ns or 0)
        return Publish(self.topic(Verb.NDEATH), assemble([number], seq=None, time_ns=time_ns))

    def nbirth(self, batches: Iterable[Batch], time_ns: int) -> Publish:
        """NBIRTH with seq 0. All devices have to be born anew. ``batches`` are the latest values of ``self.device``."""
        self._born.clear()
        self._seq = 255
        metrics = [
            metric.node_metric(BDSEQ, Kind.INT64, self.bdseq, time_ns),
            metric.node_metric(REBIRTH, Kind.BOOL, False, time_ns),
        ]
        known = {tag.name: (tag.kind, tag.unit) for tag in self.device.tags}
        metrics += self._birth_metrics("", known, batches, time_ns)
        return Publish(self.topic(Verb.NBIRTH), assemble(metrics, seq=self._next_seq(), time_ns=time_ns))

    def ndata(self, batches: Iterable[Batch], time_ns: int) -> Publish:
        """NDATA with values of the node's own metrics."""
        metrics = [self._own.encode(batch, historical=False) for batch in batches]
        return Publish(self.topic(Verb.NDATA), assemble(metrics, seq=self._next_seq(), time_ns=time_ns))

    # ---- births and deaths of devices

    def is_alive(self, device: str) -> bool:
        born = self._born.get(device)
        return born is not None and born.alive

    def alive(self) -> list[str]:
        """Names of the devices that are born and not dead."""
        return [name for name, born in self._born.items() if born.alive]

    def template(self, device: Device) -> Template | None:
        """The encoder for batches of ``device``; None where that Device object has not been seen since the last birth."""
        born = self._born.get(device.name)
        return born.templates.get(device) if born is not None and born.alive else None

    def fit(self, device: Device) -> Template | None:
        """The same for an object that is new here; None where the device's birth does not cover its tags."""
        born = self._born.get(device.name)
        if born is None or not born.alive:
            return None
        names = [_covering(born.metrics, tag) for tag in device.tags]
        if None in names:
            return None
        aliases = [self._alias(device.name, name or "", tag.kind) for name, tag in zip(names, device.tags, strict=True)]
        if len(born.templates) >= MAX_TEMPLATES:
            del born.templates[next(iter(born.templates))]
        template = born.templates[device] = Template(device, aliases)
        return template

    def born_upto(self, device: str) -> int:
        """The newest time that the device's birth told, UTC nanoseconds; 0 where it told none."""
        born = self._born.get(device)
        return born.upto_ns if born is not None else 0

    def shapes(self, device: str) -> list[Device]:
        """The configurations that the device's latest birth was made of, the current one first; empty before it."""
        born = self._born.get(device)
        return list(born.shapes) if born is not None else []

    def dbirth(self, devices: Sequence[Device], batches: Iterable[Batch], time_ns: int) -> Publish:
        """DBIRTH of one device: ``devices`` are its configurations that data will come from, the current one first.

        Its metrics are the union of theirs. ``batches`` are the latest values of the current configuration; a metric that
        has none is null.
        """
        values = list(batches)
        name = devices[0].name
        born = Born(shapes=list(devices), upto_ns=max((int(batch.time_ns.max()) for batch in values), default=0))
        for device in devices:
            for tag in device.tags:
                if _covering(born.metrics, tag) is None:
                    born.metrics[tag.name if tag.name not in born.metrics else _beside(tag)] = (tag.kind, tag.unit)
        self._born[name] = born
        metrics = self._birth_metrics(name, born.metrics, values, time_ns)
        return Publish(self.topic(Verb.DBIRTH, name), assemble(metrics, seq=self._next_seq(), time_ns=time_ns))

    def ddeath(self, device: str, time_ns: int) -> Publish:
        """DDEATH: the device is lost, or will say nothing more."""
        self._born[device].alive = False
        return Publish(self.topic(Verb.DDEATH, device), assemble([], seq=self._next_seq(), time_ns=time_ns))

    def ddata(self, device: str, metrics: Iterable[bytes], time_ns: int, body: bytes) -> Publish:
        """DDATA from the bytes that ``template(...).encode`` gave for batches of ``device``, oldest first."""
        return Publish(self.topic(Verb.DDATA, device), assemble(metrics, seq=self._next_seq(), time_ns=time_ns, body=body))

    # ----

    def _next_seq(self) -> int:
        self._seq = (self._seq + 1) % 256
        return self._seq

    def _alias(self, device: str, name: str, kind: Kind) -> int:
        alias = self._aliases.setdefault((device, name, kind), len(self._aliases) + FIRST_ALIAS)
        if alias > MAX_ALIAS:
            raise OverflowError(f"device {device}: no alias is left for {name}")
        self._metrics[alias] = (device, name, kind)
        return alias

    def name_of(self, device: str, alias: int) -> str | None:
        """The metric of ``device`` that ``alias`` stands for, whatever its kind; None where it stands for none of its."""
        found = self._metrics.get(alias)
        return found[1] if found is not None and found[0] == device else None

    def _birth_metrics(self, device: str, known: dict[str, tuple[Kind, str]], batches: Iterable[Batch], time_ns: int) -> list[bytes]:
        told: dict[str, tuple[Value, int, int]] = {}
        for batch in batches:
            tags = batch.device.tags
            columns = zip(batch.tag.tolist(), batch.value.tolist(), batch.quality.tolist(), batch.time_ns.tolist(), strict=True)
            for slot, value, status, at_ns in columns:
                told[tags[slot].name] = (value, status, at_ns)
        metrics = []
        for name, (kind, unit) in known.items():
            value, status, at_ns = told.get(name, (False, int(Quality.BAD_OUT_OF_SERVICE), 0))
            at_ns = at_ns if at_ns > 0 else time_ns
            metrics.append((at_ns, metric.birth_metric(name, self._alias(device, name, kind), kind, unit, value, status, at_ns)))
        metrics.sort(key=itemgetter(0))  # tck-id-operational-behavior-data-publish-dbirth-order
        return [content for _, content in metrics]


def _beside(tag: Tag) -> str:
    """The name of a metric whose plain name stands for another kind now."""
    return f"{tag.name}@{tag.kind}"


def _covering(metrics: dict[str, tuple[Kind, str]], tag: Tag) -> str | None:
    """The name of the metric that carries ``tag``'s values, or None where there is none."""
    for name in (tag.name, _beside(tag)):
        kind, _ = metrics.get(name, (None, ""))
        if kind is tag.kind:
            return name
    return None


class Throttle:
    """Lets one thing happen at most once in ``every_s``: what comes too soon is done once, when the time has come.

    Times are seconds of a monotonic clock.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last = float("-inf")
        self._asked = False

    def ask(self) -> None:
        self._asked = True

    def due(self) -> float | None:
        """The moment from which on it should be done, or None where nobody asks."""
        return self._last + self._every_s if self._asked else None

    def done(self, now: float) -> None:
        self._asked = False
        self._last = now
