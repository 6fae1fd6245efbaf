"""Links that die in every way that networks know, before the broker and before a device: nothing is lost, nothing is wrong.

A *cut* is a black hole, a half-open connection or a broken one, of random length, on a link that may be slow before; what
is sent into it is swallowed, torn in the middle of a packet or delivered late. Some are shorter than the gateway needs to
notice, some longer than its keepalive. The field goes on all the while, so the oracle finds every scan that was sent into
a hole and did not come. Several plants run side by side: waiting costs nothing.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.faults import figures
from tests.faults.oracle import ROUND, Oracle, Verdict
from tests.faults.rig import DEADLINE_S, Plan, Rig, dice, many, rig
from tests.peers.cloud import Absence, Arrival, Row, Told
from tests.peers.fast import STAMP
from tests.peers.proxy import Proxy

CUTS_OF_A_KIND: Final = -(-many(30, 1000) // 3)
PLANTS: Final = 8 if figures.LONG else 5
KEEPALIVE_S: Final = 5.0
HEAL_S: Final = 2 * DEADLINE_S
NO_LIMIT: Final = "max_queued_messages 0"
"""mosquitto drops QoS 0 messages to a client for which 1,000 wait; what it drops after its PUBACK is not the gateway's."""
HISTORIAN: Final = "historian"

Harm = Callable[[Proxy, random.Random], Awaitable[None]]


# ---- harm


async def black_hole(proxy: Proxy, chance: random.Random) -> None:
    proxy.black_hole()


async def half_open(proxy: Proxy, chance: random.Random) -> None:
    dead_up = chance.random() < 0.5
    proxy.black_hole(up=dead_up, down=not dead_up)


async def broken(proxy: Proxy, chance: random.Random) -> None:
    """Reset, torn in the middle of a packet, or reset and refused."""
    how = chance.randrange(3)
    if how == 0:
        await proxy.reset()
    elif how == 1:
        proxy.tear(chance.randrange(500))
    else:
        await proxy.refuse()


KINDS: Final[dict[str, Harm]] = {"black hole": black_hole, "half open": half_open, "broken": broken}


@dataclass(frozen=True, slots=True)
class Cut:
    kind: str
    length_s: float
    slow: bool
    """Before the cut the link carries a few kB/s for a moment, so that it is full when it dies."""
    forgotten: bool
    """The network forgets the connections meanwhile: what it swallowed never comes."""
    patient: bool
    """The next cut waits until live records flow again."""


def deal(chance: random.Random, hands: int) -> list[list[Cut]]:
    """The cuts of a campaign, shuffled, in as many hands as there are plants. One in five outlasts the keepalive."""
    cuts = [_draw(chance, kind, at) for kind in KINDS for at in range(CUTS_OF_A_KIND)]
    chance.shuffle(cuts)
    return [cuts[hand::hands] for hand in range(hands)]


def _draw(chance: random.Random, kind: str, at: int) -> Cut:
    length_s = chance.uniform(KEEPALIVE_S + 0.5, 8.0) if at % 5 == 0 else 0.1 * 20 ** chance.random()
    if figures.LONG and at % 100 == 50:
        length_s = chance.uniform(20.0, 25.0)
    return Cut(kind, length_s, chance.random() < 0.2, chance.random() < 0.5, chance.random() < 0.75)


async def suffer(plant: Rig, cut: Cut, chance: random.Random) -> None:
    """One cut, from its beginning to its end."""
    proxy = plant.proxy
    if cut.slow:
        proxy.bytes_per_s = chance.uniform(2000, 8000)
        await asyncio.sleep(chance.uniform(0.1, 1.0))
    await KINDS[cut.kind](proxy, chance)
    await asyncio.sleep(cut.length_s)  # the length of the outage is the harm itself
    proxy.bytes_per_s = 0.0
    if cut.forgotten:
        await proxy.reset()
    await proxy.heal()


@dataclass(slots=True)
class Live:
    """Listens beside the oracle: when was the newest live scan of the field taken that has come?"""

    newest_ms: int = 0

    def __call__(self, thing: Arrival | Absence | Told) -> None:
        if isinstance(thing, Arrival) and not thing.historical:
            self.newest_ms = max(self.newest_ms, *(row.time_ms for row in thing.rows))


# ---- plain MQTT


class Historian:
    """``with Historian(port, oracle)``: reads plain MQTT as ``gateway/uplink/README.md`` describes it; shares no code with it."""

    def __init__(self, port: int, oracle: Oracle) -> None:
        self._oracle = oracle
        self.malformed: list[str] = []
        self.listens = False
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "reads-plain", protocol=paho.MQTTv5)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.connect_async("127.0.0.1", port, keepalive=10)

    def __enter__(self) -> Self:
        self._client.loop_start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        client.subscribe("plain/#", 1)

    def _on_subscribe(self, *_: object) -> None:
        self.listens = True

    def _on_message(self, client: paho.Client, _: object, message: paho.MQTTMessage) -> None:
        try:
            self._take(json.loads(message.payload))
        except Exception as error:  # noqa: BLE001 - a thread of paho would swallow it; here the test sees it
            self.malformed.append(f"{message.topic}: {error!r}")

    def _take(self, body: dict[str, Any]) -> None:  # Any: JSON
        lane, epoch, seq, names = body["lane"], body["epoch"], body["seq"], body["tags"]
        for span in body.get("lost", ()):
            self._oracle(Absence(lane, epoch, span["first"], span["last"], span["reason"]))
        quality = body.get("quality", [0] * len(names))
        times = body["time_us"] if isinstance(body["time_us"], list) else [body["time_us"]] * len(names)
        rows = zip(names, body["values"], quality, (time_us // 1000 for time_us in times), strict=True)
        made = tuple(Row(*row) for row in rows)
        self._oracle(Arrival(body["device"], (lane, epoch, seq), body.get("historical", False), made, time.monotonic()))
        self._oracle(Told(lane, epoch, seq, seq, None))  # a seq that exists says that those before it do


def with_historian(document: dict[str, Any]) -> None:  # Any: JSON
    cloud = document["uplinks"][0]
    kept = {key: cloud[key] for key in ("host", "port", "keepalive_s", "timeout_s")}
    document["uplinks"].append({**kept, "name": HISTORIAN, "type": "mqtt", "topic": "plain/{device}"})


# ---- the uplink's link


@dataclass(slots=True)
class Campaign:
    """What the plants of one test have measured."""

    healed_s: list[float] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    cuts: int = 0

    def record(self, name: str, seconds: float) -> None:
        figures.record(
            name,
            cuts=self.cuts,
            seconds=round(seconds, 1),
            records=sum(each.records for each in self.verdicts),
            values=sum(each.values for each in self.verdicts),
            duplicates=sum(each.duplicates for each in self.verdicts),
            lost=sum(sum(each.dropped.values()) for each in self.verdicts),
            healed_p50_s=round(sorted(self.healed_s)[len(self.healed_s) // 2], 2),
            healed_max_s=round(max(self.healed_s), 2),
        )


async def live_again(plant: Rig, live: Live) -> float:
    """Wait until a live scan that was taken after now has come; seconds."""
    now_ms = time.time_ns() // 1_000_000
    began = time.monotonic()
    await plant.until("live records flow again", lambda: live.newest_ms > now_ms, HEAL_S)
    return time.monotonic() - began


async def run_plant(plant: Rig, cuts: list[Cut], chance: random.Random, campaign: Campaign) -> None:
    live = Live()
    plant.oracle.also.append(live)
    await live_again(plant, live)
    for cut in cuts:
        await suffer(plant, cut, chance)
        if cut.patient:
            campaign.healed_s.append(await live_again(plant, live))
        else:
            await asyncio.sleep(chance.uniform(0.0, 1.0))
    campaign.cuts += len(cuts)


async def by_consumer(folder: Path, cuts: list[Cut], chance: random.Random, campaign: Campaign) -> None:
    async with rig(folder, Plan(devices=4)) as plant:
        await run_plant(plant, cuts, chance, campaign)
        campaign.verdicts.append(await plant.finish())


async def by_broker(folder: Path, cuts: list[Cut], chance: random.Random, campaign: Campaign) -> None:
    """Sparkplug with the broker's PUBACK of the mark, and beside it plain MQTT with the PUBACK of each message."""
    oracle = Oracle()
    with ExitStack() as stack:
        historians: list[Historian] = []

        async def let_the_historian_in(plant: Rig) -> None:
            historians.append(stack.enter_context(Historian(plant.broker.port, oracle)))
            await plant.until("the historian listens", lambda: historians[0].listens)

        plan = Plan(devices=4, acknowledge="broker", broker=NO_LIMIT, change=with_historian, before=let_the_historian_in)
        async with rig(folder, plan) as plant:
            await run_plant(plant, cuts, chance, campaign)
            await plant.drained()
            account = await settled(plant, HISTORIAN)
            campaign.verdicts.append(await plant.finish())
            assert not historians[0].malformed, historians[0].malformed[:5]
            answered = dict(zip(plant.names, await plant.field.rounds(), strict=True))
            campaign.verdicts.append(oracle.judge(answered, account))


async def settled(plant: Rig, reader: str) -> dict[str, Any]:  # Any: JSON
    """The account of ``reader`` when nothing is pending."""
    end = time.monotonic() + HEAL_S
    while True:
        account: dict[str, Any] = (await plant.stat())["readers"][reader]["telemetry"]  # Any: JSON
        if account["pending"] == 0:
            return account
        assert time.monotonic() < end, f"{reader} is not drained: {account}"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("acknowledge", ["consumer", "broker"])
async def test_what_is_sent_into_a_dead_link_is_delivered_all_the_same(tmp_path: Path, acknowledge: Literal["consumer", "broker"]) -> None:
    """Whoever confirms, 0 records are lost, whatever the link does and whether the gateway notices."""
    chance = dice(f"links, confirmed by the {acknowledge}")
    began, campaign = time.monotonic(), Campaign()
    hands = deal(chance, PLANTS)
    run = by_consumer if acknowledge == "consumer" else by_broker
    async with asyncio.TaskGroup() as plants:
        for at, cuts in enumerate(hands):
            plants.create_task(run(tmp_path / str(at), cuts, random.Random(chance.random()), campaign))
    assert campaign.cuts == 3 * CUTS_OF_A_KIND
    assert all(verdict.lost == verdict.dropped == {} for verdict in campaign.verdicts)
    campaign.record(f"links, confirmed by the {acknowledge}", time.monotonic() - began)


# ---- a device's link

CUT_DEVICE: Final = "device-0"
STALE_MS: Final = 1500


@dataclass(slots=True)
class Watch:
    """What comes of each device: when the field answered, by its own clock, and how old an answer was when it was taken."""

    stamps_ns: dict[str, list[int]] = field(default_factory=dict)
    bad: int = 0
    """Rows of bad quality of the device that is cut off."""
    good: int = 0
    oldest_ms: float = 0.0

    def __call__(self, thing: Arrival | Absence | Told) -> None:
        if not isinstance(thing, Arrival):
            return
        values = {row.tag: row.value for row in thing.rows}
        if thing.device == CUT_DEVICE:
            self.bad += sum(row.value is None and row.status >= 0x80000000 for row in thing.rows)
            self.good += values.get(ROUND) is not None
        stamp = values.get("stamp")
        if isinstance(stamp, int):
            self.stamps_ns.setdefault(thing.device, []).append(stamp)
            self.oldest_ms = max(self.oldest_ms, *(row.time_ms - stamp / 1e6 for row in thing.rows))

    def lateness_s(self, period_s: float) -> list[float]:
        """How much later than a period after the one before each answer of the other devices was, sorted."""
        late = []
        for name, stamps in self.stamps_ns.items():
            if name != CUT_DEVICE:
                late += [max(0.0, (after - before) / 1e9 - period_s) for before, after in pairwise(sorted(stamps))]
        return sorted(late)


async def unplug(plant: Rig, harm: Harm, door: Proxy, watch: Watch, chance: random.Random) -> float:
    """One cut of the device's link; seconds from its end until the device is back."""
    bad = watch.bad
    await harm(door, chance)
    await plant.until("the device is said to be bad", lambda: watch.bad > bad)
    await asyncio.sleep(chance.uniform(0.0, 3.0))  # the length of the outage is the harm itself
    good, healed = watch.good, time.monotonic()
    await door.heal()
    await plant.until("the device is back", lambda: watch.good > good + 5)
    return time.monotonic() - healed


async def test_a_device_behind_a_dead_link_is_bad_alone_and_comes_back_by_itself(tmp_path: Path) -> None:
    """The others lose no scan and stay on time; no answer of before the cut is taken for one of after it."""
    chance = dice("links, a device's")
    rounds = -(-many(3, 90) // 3)
    watch, began = Watch(), time.monotonic()
    back_s: list[float] = []
    async with Proxy("127.0.0.1", 0) as door:

        def behind_the_door(document: dict[str, Any]) -> None:  # Any: JSON
            first = document["connections"][0]
            first["devices"][0]["tags"].append({"name": "stamp", "at": f"holding:{STAMP}", "kind": "uint64"})  # one list for all devices
            door.target, first["port"] = ("127.0.0.1", first["port"]), door.port

        async with rig(tmp_path, Plan(devices=5, tags=4, change=behind_the_door)) as plant:
            plant.oracle.also.append(watch)
            await plant.arrive(100)
            for _ in range(rounds):
                harms = [*KINDS.values()]
                chance.shuffle(harms)
                back_s += [await unplug(plant, harm, door, watch, chance) for harm in harms]
            verdict = await plant.finish(excused={CUT_DEVICE})
    assert verdict.lost == verdict.dropped == {}
    late = watch.lateness_s(0.1)
    p99 = late[int(len(late) * 0.99)]
    assert watch.oldest_ms < STALE_MS, f"an answer that was {watch.oldest_ms:.0f} ms old was taken for a new one"
    assert p99 < 0.5, f"the others were late: p99 {p99:.3f} s"
    figures.record(
        "links, a device's",
        cuts=3 * rounds,
        seconds=round(time.monotonic() - began, 1),
        records=verdict.records,
        back_max_s=round(max(back_s), 2),
        others_late_p99_ms=round(1000 * p99, 1),
        others_late_max_ms=round(1000 * late[-1], 1),
        oldest_answer_ms=round(watch.oldest_ms, 1),
    )
