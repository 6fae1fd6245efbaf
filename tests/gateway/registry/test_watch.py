"""How devices are is looked at beside everything that changes them, and costs next to nothing where nothing does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.audit import Audit
from gateway.authority import Authority
from gateway.authority.certificates import Certificates
from gateway.latest import Latest
from gateway.registry import registry
from gateway.registry.life import LifeState
from gateway.registry.registry import Kind, Registry
from gateway.registry.tracking import SAMPLE_S
from gateway.state import State
from protocols.clock import Clock, ManualClock, SystemClock
from protocols.model import Batch, Device, Quality, silence
from tests import builders

PATIENCE_S = 10.0


class Counted(Latest):
    """Counts who is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[str] = []

    def batches(self, device: Device) -> Sequence[Batch]:
        self.looks.append(device.name)
        return super().batches(device)


def made(state: State, latest: Latest, clock: Clock, kind_of: Callable[[str], Kind | None] = lambda _: "field") -> Registry:
    certificates = Certificates(Authority(state.folder / "authority", "plant edge", clock), state, clock)
    return Registry(state, certificates, Audit(clock), latest, clock, kind_of=kind_of)


async def on(clock: ManualClock, seconds: int) -> None:
    """Time goes on by seconds, as the watch would have them: it waits for the disk in between."""
    for _ in range(seconds):
        await clock.advance(1.0)
        async with asyncio.timeout(PATIENCE_S):
            while not clock.sleeping:  # noqa: ASYNC110 # a thread works: nobody could set an event
                await asyncio.sleep(0.001)


async def test_a_device_that_goes_while_it_is_looked_at_ends_nothing(tmp_path: Path) -> None:
    clock, latest = SystemClock(), Latest()
    devices = [builders.floats(1, name) for name in ("one", "two")]
    for device in devices:
        latest.add(device)
        latest.update(builders.batch(device, [1.0]))

    def kind_of(name: str) -> Kind | None:
        """Asked for the first device, the second is taken out of the site."""
        if name == "one":
            latest.remove(devices[1])
        return "field"

    state = await State.open(tmp_path, [registry.MIGRATIONS], clock)
    here = made(state, latest, clock, kind_of)
    await here.look()
    assert (here.get("one").state, here.names()) == (LifeState.ACTIVE, ["one"])
    await state.close()


async def test_those_that_were_not_heard_yet_are_looked_at_each_second_and_no_others(tmp_path: Path) -> None:
    """A device that comes after ten minutes is seen as quickly as one of the first second; the others are only sampled."""
    clock, latest = ManualClock(), Counted()
    first, late, mute = (builders.floats(2, name) for name in ("first", "late", "mute"))
    state = await State.open(tmp_path, [registry.MIGRATIONS], clock)
    here = made(state, latest, clock)
    async with here.kept():
        await on(clock, 1)
        latest.add(first)
        latest.update(builders.batch(first, [1.0, 2.0]))
        await on(clock, 2)
        assert here.get("first").state is LifeState.ACTIVE

        latest.looks.clear()
        await on(clock, 600)
        assert len(latest.looks) <= 600 / SAMPLE_S + 1, "all are active and nothing changes"
        assert len(await here.steps("first")) == 1, "it became active once"

        for device in (late, mute):
            latest.add(device)
        await on(clock, 5)
        assert here.get("late").state is LifeState.REGISTERED
        latest.update(builders.batch(late, [0.0, 0.0], quality=Quality.UNCERTAIN))
        await on(clock, 2)
        assert here.get("late").state is LifeState.REGISTERED, "nothing good was heard of it"
        latest.update(builders.batch(late, [1.0, 2.0]))
        await on(clock, 2)
        assert here.get("late").state is LifeState.ACTIVE

        for one in silence(mute, Quality.BAD_NO_COMMUNICATION, 1, lost=True):
            latest.update(one)
        latest.looks.clear()
        await on(clock, 60)
        assert len(latest.looks) <= 3 * (60 / SAMPLE_S + 1), "to hear that a device is silent takes no look at its values"
    await state.close()


async def test_how_a_device_is_is_true_when_it_is_asked_and_asking_counts_nothing(tmp_path: Path) -> None:
    clock, latest = ManualClock(), Latest()
    device = builders.floats(2)
    state = await State.open(tmp_path, [registry.MIGRATIONS], clock)
    here = made(state, latest, clock)
    latest.add(device)
    latest.update(builders.batch(device, [1.0, 2.0], time_ns=5))
    await here.look()
    for one in silence(device, Quality.BAD_NO_COMMUNICATION, 9, lost=True):
        latest.update(one)
    track = here.tracking.of(device.name)
    assert track is not None
    assert (track.lost, track.good_now, track.last_seen_ns, track.good_day) == (True, 0.0, 5, 1.0)
    await state.close()
