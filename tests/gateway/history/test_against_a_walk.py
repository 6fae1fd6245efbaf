"""Whatever came, in whatever order, history says what a walk over all records says: with every cut, kill and damage."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from gateway.history.history import History, Page
from gateway.history.store import FILE
from gateway.journal import Journal
from protocols.model import Batch, Quality
from tests.gateway.history.plant import BEGAN_NS, METER, MINUTE_NS, SECOND_NS, Kept, Value, batch, caught_up, expected, kept, walked

HOURS_NS = 2 * 3600 * SECOND_NS
BUCKET_NS = 5 * MINUTE_NS
VICTIM = "import sys\nfrom tests.gateway.history.test_against_a_walk import be_killed\nbe_killed(sys.argv[1], int(sys.argv[2]))"


def random_batches(dice: random.Random, count: int) -> list[Batch]:
    """Scans of several tags, mostly in order: late ones, ones of long ago, histories of a single tag, bad values, NaN."""
    at, found = BEGAN_NS, []
    for _ in range(count):
        at += dice.choice((1, 10, 61)) * SECOND_NS // dice.choice((1, 3))
        when = at - dice.choice((0, 0, 0, 0, 30, 3000)) * SECOND_NS
        kind = dice.random()
        if kind < 0.6:
            values = [dice.choice((dice.gauss(0, 5), float("nan"), -1e9, 7.5)) for _ in range(2)]
            quality = [dice.choice((0, 0, 0, Quality.UNCERTAIN, Quality.BAD_TIMEOUT)) for _ in range(2)]
            found.append(batch(METER, [0, 4], values, [when, when + dice.choice((0, 5)) * SECOND_NS], quality))
        elif kind < 0.8:
            found.append(batch(METER, [1], [dice.randrange(2**40)], [when]))
        elif kind < 0.9:
            times = sorted(when - dice.randrange(400) * SECOND_NS for _ in range(dice.randrange(2, 30)))
            found.append(batch(METER, [0] * len(times), [dice.gauss(0, 1) for _ in times], times))
        else:
            found += [batch(METER, [2], [dice.random() > 0.5], [when]), batch(METER, [3], [dice.choice(("run", "stop"))], [when])]
    return found


async def agree(journal: Journal, history: History, tag: str, bucket_ns: int = BUCKET_NS) -> None:
    values = await walked(journal, METER.name, tag)
    async with history.turn():
        found = history.find(METER.name, tag)
        buckets = await history.buckets(found, BEGAN_NS - HOURS_NS, BEGAN_NS + HOURS_NS, bucket_ns)
        page = await history.page(found, 0, BEGAN_NS + 10 * HOURS_NS, 10**6)
    same_values(page, values)
    for place, start in enumerate(buckets.start_ns.tolist()):
        want = expected(values, start, start + bucket_ns)
        got = [getattr(buckets, name)[place] for name in ("count", "bad", "low", "high", "mean")]
        assert got == pytest.approx([want.count, want.bad, want.low, want.high, want.mean], rel=1e-6, nan_ok=True), (tag, place)
        if want.count:
            assert any(buckets.first[place] == pytest.approx(each) for each in want.firsts)
            assert any(buckets.last[place] == pytest.approx(each) for each in want.lasts)


def same_values(page: Page, values: list[Value]) -> None:
    samples = page.samples
    assert list(zip(samples.time_ns.tolist(), samples.seq.tolist(), samples.nth.tolist(), strict=True)) == [each[:3] for each in values]
    assert samples.quality.tolist() == [quality for *_, quality in values]
    np.testing.assert_array_equal(samples.value, np.array([value for _, _, _, value, _ in values], dtype=samples.value.dtype))


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_order_values_come_in(seed: int, tmp_path: Path) -> None:
    """Also with saves in between, so that what is late merges with what is stored."""
    dice = random.Random(seed)
    async with kept(tmp_path) as one:
        for _ in range(4):
            await one.offer(*random_batches(dice, 100))
            await caught_up(one.history)
            if dice.random() < 0.7:
                await one.history.follower.save()
        for tag in ("power", "energy/total", "on", "flow"):
            await agree(one.journal, one.history, tag)
        await agree(one.journal, one.history, "power", 15 * 60 * SECOND_NS)


@pytest.mark.parametrize("seed", range(2))
async def test_the_mean_by_time_is_the_area_under_the_steps(seed: int, tmp_path: Path) -> None:
    """In order, all good, with saves in between; over the edges of minutes, windows and buckets."""
    dice = random.Random(seed)
    moments = np.cumsum([dice.randrange(1, 200_000) * 10**6 for _ in range(300)]) + BEGAN_NS
    values = [dice.gauss(0, 10) for _ in moments]
    async with kept(tmp_path) as one:
        for at in range(0, 300, 60):
            await one.offer(*(batch(METER, [4], [values[n]], [int(moments[n])]) for n in range(at, at + 60)))
            await caught_up(one.history)
            await one.history.follower.save()
        async with one.history.turn():
            found = one.history.find(METER.name, "flow")
            buckets = await one.history.buckets(found, int(moments[0]), int(moments[-1]), BUCKET_NS)
    for place, start in enumerate(buckets.start_ns.tolist()):
        edges = np.clip(np.array([*moments, moments[-1] + 900 * SECOND_NS]), start, start + BUCKET_NS)
        seconds = np.diff(edges) / SECOND_NS
        assert buckets.avg[place] == pytest.approx((values * seconds).sum() / seconds.sum(), rel=1e-5), place


async def test_buckets_shorter_than_a_minute_are_made_of_the_values_themselves(tmp_path: Path) -> None:
    async with kept(tmp_path) as one:
        await one.offer(*random_batches(random.Random(9), 60))
        await agree(one.journal, one.history, "power", 20 * SECOND_NS)


async def test_texts_are_counted_and_read_back(tmp_path: Path) -> None:
    async with kept(tmp_path) as one:
        await one.offer(*random_batches(random.Random(4), 200))
        async with one.history.turn():
            found = one.history.find(METER.name, "state")
            page = await one.history.page(found, 0, BEGAN_NS + HOURS_NS, 1000)
            buckets = await one.history.buckets(found, BEGAN_NS - HOURS_NS, BEGAN_NS + HOURS_NS, HOURS_NS)
        values = await walked(one.journal, METER.name, "state")
        assert page.samples.value.tolist() == [value for _, _, _, value, _ in values]
        assert int(buckets.count.sum()) == len(values)
        assert np.isnan(buckets.low).all()


async def test_it_goes_on_after_a_stop_where_it_was(tmp_path: Path) -> None:
    for seed in range(3):
        async with kept(tmp_path) as one:
            await caught_up(one.history)
            await one.offer(*random_batches(random.Random(seed), 50))
    async with kept(tmp_path) as one:
        await caught_up(one.history)
        assert one.history.follower.folded == 0  # all of it was saved
        await agree(one.journal, one.history, "power")


@pytest.mark.parametrize("damage", ["gone", "rubbish", "flipped", "cut", "empty"])
async def test_a_damaged_file_is_made_anew(damage: str, tmp_path: Path) -> None:
    async with kept(tmp_path) as one:
        await one.offer(*random_batches(random.Random(7), 300))
        await caught_up(one.history)
    file = tmp_path / "history" / FILE
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        for at in range(16384 + 100, len(content), 997):
            content[at] ^= 0x10
    spoilt = {"rubbish": b"\xff" * 50_000, "flipped": bytes(content), "cut": bytes(content[: len(content) // 2]), "empty": b""}
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(spoilt[damage])
    async with kept(tmp_path) as one:
        await asked_until_whole(one)
        await agree(one.journal, one.history, "power")
        await agree(one.journal, one.history, "flow")


async def asked_until_whole(one: Kept) -> None:
    """What is damaged is noticed at the latest when it is read."""
    async with asyncio.timeout(20):
        while True:
            try:
                await caught_up(one.history)
                for tag in ("power", "flow"):
                    async with one.history.turn():
                        await one.history.buckets(one.history.find(METER.name, tag), BEGAN_NS - HOURS_NS, BEGAN_NS + HOURS_NS, BUCKET_NS)
                        await one.history.page(one.history.find(METER.name, tag), 0, BEGAN_NS + 10 * HOURS_NS, 10**6)
            except Exception as error:
                if type(error).__name__ not in ("Unavailable", "NotThere"):
                    raise
                await asyncio.sleep(0.02)
            else:
                return


def be_killed(folder: str, seed: int) -> None:
    """Store and save without end."""

    async def live() -> None:
        dice = random.Random(seed)
        async with kept(Path(folder)) as one:
            await caught_up(one.history)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await asyncio.gather(_offer(one, dice), _save(one))

    asyncio.run(live())


async def _offer(one: Kept, dice: random.Random) -> None:
    for _ in range(40):
        await one.offer(*random_batches(dice, 5))
    await asyncio.Event().wait()


async def _save(one: Kept) -> None:
    while True:
        await one.history.follower.save()


async def test_nothing_counts_twice_after_a_kill_and_nothing_is_missing(tmp_path: Path) -> None:
    """Kills at moments that chance picks, then all of it is compared."""
    dice = random.Random(11)
    for seed in range(4):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", VICTIM, str(tmp_path), str(seed), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"ready\n"
        await asyncio.sleep(dice.random() * 0.5)  # not to wait for anything: the moment is what varies
        process.kill()
        await process.wait()
    async with kept(tmp_path) as one:
        await caught_up(one.history)
        for tag in ("power", "energy/total", "flow"):
            await agree(one.journal, one.history, tag)
