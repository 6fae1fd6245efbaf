"""The ledger mark and the stamp: how a consumer can prove that it missed nothing.

Sparkplug sends data at QoS 0, which nobody acknowledges. So every data message carries a *stamp* (which records of the
journal it holds), and after each *window* of data messages a small QoS 1 message, the *ledger mark*, says what the window
held: records, values, messages, a digest of all payloads, and what the gateway had to lose. Its PUBACK proves that the
broker took everything before it; a consumer that compares its own sums with the mark knows that it received everything.

A window is one transmission: what is sent again goes into a new window, with a new number, so that two transmissions of the
same records never mix in a consumer's sums. Records are told apart by ``(epoch, lane, seq)``.

The stamp is ``HF``, a version byte and unsigned LEB128 numbers, which are protobuf's varints: window, lane, epoch, part,
parts, count of records, the first seq, then the distances to the next ones (each at least 1). Everything here is pure; every
length has a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from gateway.journal.record import Lane, Lost
from protocols.sparkplug.wire import varint

MAGIC: Final = b"HF\x01"
MAX_STAMPED: Final = 4096
"""Most records that one message may hold."""
MAX_PARTS: Final = 4096
MAX_STAMP_BYTES: Final = len(MAGIC) + 10 * (MAX_STAMPED + 6)
MAX_MARK_BYTES: Final = 1024 * 1024
MAX_LOST_SPANS: Final = 4096
_LANES: Final = (Lane.EVENTS, Lane.TELEMETRY)
_MAX_NUMBER: Final = 2**63 - 1

Number = Annotated[int, Meta(ge=0, le=_MAX_NUMBER)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which records a message holds. Seqs rise; they need not be neighbours (other records went to other devices)."""

    window: int
    lane: Lane
    epoch: int
    seqs: tuple[int, ...]
    part: int = 0
    parts: int = 1
    """A record too large for one message is sent in several: it is complete when each part has come."""


class LostSpan(msgspec.Struct, frozen=True):
    """Records that the gateway can never deliver, and why."""

    first: Number
    last: Number
    reason: Annotated[str, Meta(max_length=64)]


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What one window held. ``records`` plus the lost ones are ``last - first + 1``."""

    v: Annotated[int, Meta(ge=1, le=1)] = 1
    uplink: Annotated[str, Meta(max_length=128)]
    group: Annotated[str, Meta(max_length=128)]
    gateway: Annotated[str, Meta(max_length=128)]
    window: Number
    lane: Lane
    epoch: Number
    first: Number
    last: Number
    previous: tuple[Number, Number] | None = None
    """Epoch and seq of the record before ``first`` in this lane, where the gateway knows it: proves that nothing lies between."""
    records: Number
    values: Number
    messages: Number
    digest: Digest
    """Sum modulo 2^64 of :func:`digest` of each payload, 16 hex digits; the order of messages does not matter."""
    lost: Annotated[tuple[LostSpan, ...], Meta(max_length=MAX_LOST_SPANS)] = ()
    historical: bool = False
    clock: Annotated[str, Meta(max_length=32)] = "unknown"
    """How the gateway's clock was when the window was sent: ``synchronised``, ``unsynchronised``, ``wrong`` or ``unknown``."""


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer's word that it has taken over what a mark stands for. It repeats the mark's own figures."""

    v: Annotated[int, Meta(ge=1, le=1)] = 1
    window: Number
    lane: Lane
    epoch: Number
    first: Number
    last: Number
    digest: Digest


class Tally:
    """Sums up the messages of one window, on either side of the wire."""

    __slots__ = ("messages", "sum", "values")

    def __init__(self) -> None:
        self.messages = 0
        self.values = 0
        self.sum = 0

    def add(self, payload: bytes, values: int) -> None:
        self.messages += 1
        self.values += values
        self.sum = (self.sum + digest(payload)) & 0xFFFFFFFFFFFFFFFF

    @property
    def digest(self) -> str:
        return f"{self.sum:016x}"


def digest(payload: bytes) -> int:
    """The 8-byte BLAKE2b (RFC 7693) of ``payload`` as a big-endian number."""
    return int.from_bytes(blake2b(payload, digest_size=8).digest(), "big")


def lost_spans(entries: Iterable[object]) -> tuple[LostSpan, ...]:
    """The Lost ones among a portion's entries, in a mark's form."""
    return tuple(LostSpan(entry.first, entry.last, entry.reason) for entry in entries if isinstance(entry, Lost))


def acknowledge(mark: Mark) -> Ack:
    """The Ack that answers ``mark``."""
    return Ack(window=mark.window, lane=mark.lane, epoch=mark.epoch, first=mark.first, last=mark.last, digest=mark.digest)


def ack_topic(ledger_topic: str) -> str:
    return f"{ledger_topic}/ack"


Message = TypeVar("Message", Mark, Ack)

_encoder = msgspec.json.Encoder()
_mark_decoder = msgspec.json.Decoder(Mark)
_ack_decoder = msgspec.json.Decoder(Ack)


def encode(message: Mark | Ack) -> bytes:
    return _encoder.encode(message)


def decode_mark(data: bytes) -> Mark:
    """Raises ValueError if ``data`` is no mark or its figures contradict each other."""
    if len(data) > MAX_MARK_BYTES:
        raise ValueError(f"a ledger mark of {len(data)} bytes: at most {MAX_MARK_BYTES} are taken")
    mark = _decoded(_mark_decoder, data)
    lost = sum(span.last - span.first + 1 for span in mark.lost)
    if any(not mark.first <= span.first <= span.last <= mark.last for span in mark.lost):
        raise ValueError(f"ledger mark {mark.first} to {mark.last}: a lost span lies outside of it")
    if mark.records + lost != mark.last - mark.first + 1:
        raise ValueError(f"ledger mark {mark.first} to {mark.last}: {mark.records} records and {lost} lost do not add up")
    return mark


def decode_ack(data: bytes) -> Ack:
    """Raises ValueError if ``data`` is no acknowledgement."""
    if len(data) > MAX_MARK_BYTES:
        raise ValueError(f"an acknowledgement of {len(data)} bytes: at most {MAX_MARK_BYTES} are taken")
    return _decoded(_ack_decoder, data)


def _decoded(decoder: msgspec.json.Decoder[Message], data: bytes) -> Message:
    try:
        return decoder.decode(data)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def encode_stamp(stamp: Stamp) -> bytes:
    """Raises ValueError if the seqs do not rise or are too many."""
    seqs = stamp.seqs
    if not 0 < len(seqs) <= MAX_STAMPED:
        raise ValueError(f"a message holds 1 to {MAX_STAMPED} records, not {len(seqs)}: send them in several messages")
    out = [_head(stamp.window, stamp.lane, stamp.epoch), varint(stamp.part), varint(stamp.parts), varint(len(seqs))]
    previous = 0
    for place, seq in enumerate(seqs):
        if place and seq <= previous:
            raise ValueError(f"seq {seq} after {previous}: seqs must rise")
        out.append(varint(seq - previous))
        previous = seq
    return b"".join(out)


@lru_cache(maxsize=64)  # a window has one for all its messages
def _head(window: int, lane: Lane, epoch: int) -> bytes:
    return b"".join((MAGIC, varint(window), varint(_LANES.index(lane)), varint(epoch)))


def decode_stamp(data: bytes) -> Stamp:
    """Raises ValueError if ``data`` is no stamp, or one of a version that is not known here."""
    if not data.startswith(MAGIC):
        raise ValueError("no stamp of a known version")
    if len(data) > MAX_STAMP_BYTES:
        raise ValueError(f"a stamp of {len(data)} bytes: at most {MAX_STAMP_BYTES} are taken")
    numbers = _numbers(data, len(MAGIC))
    if len(numbers) < 7:
        raise ValueError("the stamp is cut off")
    window, lane, epoch, part, parts, count = numbers[:6]
    if lane >= len(_LANES) or not part < parts <= MAX_PARTS or not 0 < count <= MAX_STAMPED or count != len(numbers) - 6:
        raise ValueError("the stamp's figures contradict each other")
    return Stamp(window, _LANES[lane], epoch, _running_sums(numbers[6:]), part, parts)


def _running_sums(distances: Sequence[int]) -> tuple[int, ...]:
    seqs, seq = [], 0
    for place, distance in enumerate(distances):
        if place and not distance:
            raise ValueError("the stamp names a record twice")
        seq += distance
        seqs.append(seq)
    if seq > _MAX_NUMBER:
        raise ValueError("the stamp's seq is too large")
    return tuple(seqs)


def _numbers(data: bytes, at: int) -> list[int]:
    numbers, number, shift = [], 0, 0
    for byte in data[at:]:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            number = shift = 0
        elif shift > 56:
            raise ValueError("a number in the stamp is too long")
    if shift:
        raise ValueError("the stamp is cut off")
    if any(number > _MAX_NUMBER for number in numbers):
        raise ValueError("a number in the stamp is too large")
    return numbers
