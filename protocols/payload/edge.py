"""A Sparkplug edge node as a host sees it: who is born, who is dead, whether a message was missed. Pure: messages in, news out.

Aliases mean what the last birth said; a gap in the sequence numbers (6.4.5) or an alias that nobody announced makes the host
ask for a rebirth. An NDEATH counts only with the bdSeq of the NBIRTH that is alive (6.4.1): a late one says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from protocols.model import Batch, Kind
from protocols.payload.births import Births
from protocols.payload.decoder import Decoder
from protocols.payload.options import PayloadTag
from protocols.payload.trouble import BadPlace, Undecodable
from protocols.sparkplug import metric
from protocols.sparkplug.session import REBIRTH
from protocols.sparkplug.template import assemble
from protocols.sparkplug.topics import NAMESPACE, BadName, Verb, checked, parse, topic
from protocols.values import Value

BIRTHS: Final = (Verb.NBIRTH, Verb.DBIRTH)
COMMANDS: Final = (Verb.NCMD, Verb.DCMD)
PREFIX: Final = NAMESPACE + "/"


@dataclass(frozen=True, slots=True)
class Place:
    """An edge node, or one of its devices."""

    group: str
    node: str
    device: str = ""

    @property
    def command_topic(self) -> str:
        return topic(self.group, Verb.DCMD if self.device else Verb.NCMD, self.node, self.device)


@dataclass(slots=True)
class News:
    """What one message brought."""

    device: str = ""
    """Whose it is: the Sparkplug device, empty for the node itself."""
    batches: list[Batch] = field(default_factory=list)
    dead: tuple[str, ...] = ()
    """Who is gone: keys of the decoders."""
    trouble: str = ""
    """Why it could not be read; empty where it could."""


class Edge:
    """One edge node. ``decoders`` are those of the node (under the empty name) and of its devices, as far as they are read."""

    def __init__(self, group: str, node: str, decoders: Mapping[str, Decoder]) -> None:
        self.group, self.node = group, node
        self.wants_rebirth = True
        """Nobody knows (any more) what this node's numbers mean: ask it with ``rebirth``."""
        self._decoders = dict(decoders)
        self._others = Births()
        """Reads the sequence numbers of devices that nobody wants to know of."""
        self._seq: int | None = None
        self._bdseq: int | None = None

    @property
    def filters(self) -> tuple[str, str]:
        """What to subscribe to: everything that the node says, for its sequence numbers count over all of it."""
        return f"{PREFIX}{self.group}/+/{self.node}", f"{PREFIX}{self.group}/+/{self.node}/+"

    def begin(self) -> None:
        """A new session with the broker: what was missed in between nobody knows."""
        self._forget()
        self.wants_rebirth = True

    def rebirth(self, now_ns: int) -> tuple[str, bytes]:
        """Topic and payload that ask the node for its births."""
        asked = metric.node_metric(REBIRTH, Kind.BOOL, True, now_ns)
        return topic(self.group, Verb.NCMD, self.node), assemble([asked], seq=None, time_ns=now_ns)

    def take(self, text: str, payload: bytes, now_ns: int) -> News | None:
        """What a message on the topic ``text`` brings; None where it is no message of this node."""
        said = parse(text)
        if said is None or said.verb in COMMANDS or (said.group, said.node) != (self.group, self.node):
            return None
        if said.verb is Verb.NDEATH:
            return self._death(payload)
        is_birth = said.verb in BIRTHS
        if said.verb is Verb.NBIRTH:
            self._forget()
        news = News(said.device)
        decoder = self._decoders.get(said.device)
        if decoder is None or decoder.births is None:
            births = self._others
            try:
                births.read(payload, _LONGEST, birth=is_birth)
            except Undecodable as trouble:
                news.trouble = str(trouble)
        elif said.verb is Verb.DDEATH:
            births = decoder.births
            decoder.decode(payload, now_ns)
            births.forget()
        else:
            births = decoder.births
            news.batches = decoder.decode(payload, now_ns, birth=is_birth)
            news.trouble = decoder.trouble
            self.wants_rebirth = self.wants_rebirth or births.wants_birth
        if said.verb is Verb.DDEATH and said.device in self._decoders:
            news.dead = (said.device,)
        self._count(said.verb, births)
        return news

    def _count(self, verb: Verb, births: Births) -> None:
        if verb is Verb.NBIRTH:
            self._bdseq = births.bdseq
            self.wants_rebirth = births.seq is None
        elif self._seq is None or births.seq != (self._seq + 1) % 256:
            self.wants_rebirth = True  # before its birth, or after one that was missed
        self._seq = births.seq

    def _death(self, payload: bytes) -> News:
        births = Births()
        try:
            births.read(payload, _LONGEST, birth=False)
        except Undecodable as trouble:
            return News(trouble=str(trouble))
        if self._bdseq is not None and births.bdseq is not None and births.bdseq != self._bdseq:
            return News()
        self._forget()
        return News(dead=tuple(self._decoders))

    def _forget(self) -> None:
        self._seq = self._bdseq = None
        for decoder in self._decoders.values():
            if decoder.births is not None:
                decoder.births.forget()


_LONGEST: Final = 1_000_000


def place_of(text: str) -> Place:
    """``group/node`` or ``group/node/device``. Raises BadPlace."""
    parts = text.split("/")
    advice = "write group/node, or group/node/device"
    if len(parts) not in (2, 3):
        raise BadPlace(f"{text!r} names no Sparkplug node or device", advice)
    try:
        for part, what in zip(parts, ("group", "edge node", "device"), strict=False):
            checked(part, what)
    except BadName as trouble:
        raise BadPlace(str(trouble), advice) from None
    return Place(*parts)


def command_payload(value: Value, tag: PayloadTag, now_ns: int) -> bytes:
    """NCMD or DCMD that sets one metric (raw value: ``values.raw_of``)."""
    return assemble([metric.node_metric(tag.at, tag.kind, value, now_ns)], seq=None, time_ns=now_ns)
