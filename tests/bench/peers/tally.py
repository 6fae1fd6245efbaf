"""What a subscriber of the broker receives from a product, and what can be said of it: values, scans, ages, what is missing.

Three products, three ways to write a message; ``DECODERS`` turns each into a device and its values. Every value tells the round of
its device in which it was read (``tests/peers/fast_modbus.c``), so that what never arrived can be named; and the field knows when
it answered in which round, so that the age of what arrived is known without asking any product to read a clock.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from protocols.sparkplug.sparkplug_b_pb2 import Payload
from tests.bench.loads import GATEWAY, GROUP

Scan = tuple[str, Sequence[float]]
"""A device and some values of it."""
Decoder = Callable[[str, bytes], list[Scan]]
ROUNDS: Final = 1000
"""Rounds are counted modulo this."""
MOST_ARRIVALS: Final = 50_000


def holdfast(topic: str, body: bytes) -> list[Scan]:
    return [(topic.rpartition("/")[2], [metric.float_value for metric in Payload.FromString(body).metrics])]


def node_red(topic: str, body: bytes) -> list[Scan]:
    """One object a scan."""
    values: dict[str, float] = _json(body)
    return [(topic.rpartition("/")[2], list(values.values()))]


def node_red_topics(topic: str, body: bytes) -> list[Scan]:
    """A number for each topic ``nodered/DEVICE/TAG``."""
    return [(topic.split("/")[1], [float(body)])]


def thingsboard(topic: str, body: bytes) -> list[Scan]:
    """``{device: [{"ts": ms, "values": {...}}, ...]}``."""
    told: dict[str, list[dict[str, Any]]] = _json(body)  # Any: JSON
    return [(device, list(entry["values"].values())) for device, entries in told.items() for entry in entries]


_json: Final = msgspec.json.Decoder().decode
DECODERS: Final[dict[str, tuple[str, Decoder]]] = {
    "holdfast": (f"spBv1.0/{GROUP}/DDATA/{GATEWAY}/+", holdfast),
    "node-red": ("nodered/+", node_red),
    "node-red-topics": ("nodered/#", node_red_topics),
    "thingsboard": ("v1/gateway/telemetry", thingsboard),
    "thingsboard-sqlite": ("v1/gateway/telemetry", thingsboard),
}
"""For each product: the topics that its values come on, and how to read them."""


@dataclass
class Tally:
    """Everything that came since ``forget``."""

    decode: Decoder
    tags: int
    """Values of one scan of a device."""
    by_round: bool = False
    """Also note when each device's rounds came. Costs a little, so only where something may be lost."""
    messages: int = 0
    values: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Values of each device."""
    wrong: int = 0
    """Values that the field never gave, among the first and the last of each message."""
    arrivals: list[tuple[str, int, int]] = field(default_factory=list)
    """The first value of each message, up to MOST_ARRIVALS: its device, its round modulo ROUNDS, when it came (UTC nanoseconds)."""
    rounds: dict[str, dict[int, tuple[float, int]]] = field(default_factory=lambda: defaultdict(dict))
    """For each device: when each of its rounds came first (UTC seconds), and how many values of it came."""

    def add(self, topic: str, body: bytes, now_ns: int) -> None:
        self.messages += 1
        for device, values in self.decode(topic, body):
            self.values[device] += len(values)
            if len(self.arrivals) < MOST_ARRIVALS:
                self.arrivals.append((device, int(values[0]) % ROUNDS, now_ns))
            self.wrong += sum(not self._is_right(value) for value in (values[0], values[-1]))
            if self.by_round:
                rounds = self.rounds[device]
                for a_round, count in Counter(int(value) % ROUNDS for value in values).items():
                    first, before = rounds.get(a_round, (now_ns / 1e9, 0))
                    rounds[a_round] = (first, before + count)

    def _is_right(self, value: float) -> bool:
        """Register pair ``p`` gives ``1000 * p + round``; see ``tests.peers.fast.counter``."""
        return value == int(value) and 0 <= value < self.tags * ROUNDS


def ages_s(arrivals: Sequence[tuple[str, int, int]], answered: Mapping[str, Sequence[int]]) -> list[float]:
    """How old each arrival was: since the field's last answer in its round, from ``answered`` (see ``FastModbus.answered``)."""
    found = []
    for device, a_round, came_ns in arrivals:
        moments = answered[device]
        told_ns = max((moment for moment in moments[a_round::ROUNDS] if moment <= came_ns), default=0)
        if told_ns:
            found.append((came_ns - told_ns) / 1e9)
    return found
