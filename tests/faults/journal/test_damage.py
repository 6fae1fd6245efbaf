"""Files that are not what was written: flipped bits, zeros, cut ends, absent side files."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import Counter
from pathlib import Path

import apsw
import pytest

from gateway.journal import Journal, Lane
from protocols.clock import ManualClock
from tests.faults import figures
from tests.faults.journal.conftest import EVENTS, RECORDS, Seeded, Victims
from tests.faults.journal.plant import LONG, Findings, Victim, copied, files, fill, inspect, options

FLIPS = 10_000 if LONG else 500
CUT = 64 * 1024
CUT_STEP = 1 if LONG else 97
PAGE = 8192


def stored(found: Findings) -> int:
    return sum(len(numbers) for numbers in found.numbers.values())


def lost(found: Findings) -> int:
    return found.lost.total()


async def test_a_flipped_bit_costs_at_most_one_record_and_never_gives_a_wrong_value(rotten: list[Victim], dice: Seeded) -> None:
    """Over all files, after a kill and after a clean stop. What SQLite alone would read of the harmed file is compared with what
    it was: wherever a record's row differs the journal has noticed it, and what is delivered is as it was, but for one record at most.
    In half the cases ``heads`` is absent, as it may be after a power cut."""
    truths = [await inspect(victim.lay()) for victim in rotten]
    rows = {(n, path): readable(victim, path, victim.content[path]) for n, victim in enumerate(rotten) for path in victim.segments}
    sums: Counter[str] = Counter()
    for case in range(FLIPS):
        victim, truth = rotten[case % 2], truths[case % 2]
        path = dice.choices(victim.segments, [len(victim.content[each]) for each in victim.segments])[0]
        at, bit = dice.randrange(len(victim.content[path])), dice.randrange(8)
        where = f"case {case}: {victim.name} {path} byte {at} bit {bit}"
        harmed = flipped(victim.content[path], at, bit)
        changed = readable(victim, path, harmed) != rows[case % 2, path]
        found = await inspect(victim.lay(path, harmed, without="heads" if case % 8 < 4 else ""), verify_first=case % 4 < 2)
        conforms(found, truth, where)
        lost = found.lost.total()
        assert lost <= 1, (where, found.lost)
        assert set(found.lost) <= {"quarantined", "missing"}, (where, found.lost)
        assert found.account("cloud") in ((truth.account("cloud"),) if victim.name == "stopped" else range(truth.account("cloud") + 1)), (
            where
        )
        assert found.noticed or not (changed or lost), f"{where}: a change went unnoticed"
        sums += Counter(changed=changed, noticed=found.noticed, quarantined=lost)
    figures.record("journal.flips", seed=dice.begun_with, flips=FLIPS, wrong=0, most_lost=1, **sums)
    assert sums["quarantined"], "no flip ever met a record that lay in one place only: the campaign tests nothing"
    assert sums["changed"] > sums["quarantined"], "no flip ever met a row that could be repaired: the campaign tests nothing"


async def test_a_file_cut_anywhere_opens_and_what_is_absent_is_counted(truncated: list[Victim], dice: Seeded) -> None:
    """The last 64 KiB of each kind of file: a sealed one, the newest, its WAL, after a kill and after a clean stop; every 97th offset
    (from one that the dice choose), in a long campaign every one, and those of the other lane too."""
    truths = [await inspect(victim.lay()) for victim in truncated]
    lost: list[int] = []
    for victim, truth in zip(truncated, truths, strict=True):
        for path in victim.segments:
            content = victim.content[path]
            if (path.parts[0] == "events" and not LONG) or (victim is not truncated[0] and content == truncated[0].content.get(path)):
                continue  # the same kinds of file; sealed before: the same case
            for size in range(max(0, len(content) - CUT) + dice.randrange(CUT_STEP), len(content), CUT_STEP):
                found = await inspect(victim.lay(path, content[:size]))
                conforms(found, truth, f"{victim.name} {path} cut to {size} of {len(content)}")
                lost.append(found.lost.total())
    figures.record("journal.cuts", seed=dice.begun_with, cuts=len(lost), wrong=0, uncounted=0, most_lost=max(lost))
    assert max(lost) > 1, "no cut ever took a record: the campaign tests nothing"


def conforms(found: Findings, truth: Findings, where: str) -> None:
    """What is delivered is what was stored, under the same names; what is absent is counted, to the last record."""
    for lane in Lane:
        delivered = found.identities[lane]
        assert delivered.items() <= truth.identities[lane].items(), where
        assert found.written[lane].items() <= truth.written[lane].items(), where
        absent = {name for number, name in truth.identities[lane].items() if number not in delivered}
        counted = {(gap.epoch, seq) for gap in found.gaps[lane] for seq in range(gap.first, gap.last + 1)}
        assert absent == counted, (where, sorted(absent ^ counted)[:5])


def flipped(content: bytes, at: int, bit: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def readable(victim: Victim, path: Path, content: bytes) -> set[tuple[int, bytes]] | None:
    """Seqs and frames of records that SQLite alone reads of a file and its WAL, one of which holds ``content``; None where it refuses."""
    name = path.with_name(path.name.removesuffix("-wal"))
    folder = victim.folder.parent / "plain"
    folder.mkdir(exist_ok=True)
    for each in (name, name.with_name(f"{name.name}-wal")):
        (folder / each.name).unlink(missing_ok=True)
        if each in victim.content:
            (folder / each.name).write_bytes(content if each == path else victim.content[each])
    try:
        connection = apsw.Connection(str(folder / name.name), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
            found = connection.execute("SELECT id >> 8, frame FROM record")
            return set(found)
        finally:
            connection.close(True)
    except (apsw.Error, UnicodeDecodeError):
        return None


async def test_zero_filled_pages_are_counted(victims: Victims, dice: random.Random, tmp_path: Path) -> None:
    """A power cut can leave a file at its full length with zeros in it."""
    for case in range(200 if LONG else 20):
        folder = copied(victims.live if case % 2 else victims.closed, tmp_path / "case")
        target = dice.choice(files(folder))
        content = bytearray(target.read_bytes())
        at = dice.randrange(0, len(content), PAGE)
        content[at : at + PAGE] = bytes(len(content[at : at + PAGE]))
        target.write_bytes(content)
        found = await inspect(folder)
        assert found.wrong == 0
        if not target.name.endswith("-wal"):
            assert stored(found) + lost(found) == RECORDS + EVENTS, (target.name, at)


async def test_whichever_page_of_the_newest_segment_is_zero_every_record_is_accounted_for(victims: Victims, tmp_path: Path) -> None:
    """Also the page with the definitions and the state: other segments know the device."""
    newest = max((victims.closed / "telemetry").glob("*.seg"))
    for at in range(0, newest.stat().st_size, PAGE):
        folder = copied(victims.closed, tmp_path / "case")
        with (folder / "telemetry" / newest.name).open("r+b") as file:
            file.seek(at)
            file.write(bytes(PAGE))
        found = await inspect(folder)
        assert found.wrong == 0
        assert stored(found) + lost(found) == RECORDS + EVENTS, at


async def test_deleted_side_files_do_not_stop_the_journal(victims: Victims, tmp_path: Path) -> None:
    """After a clean stop nothing is in them; after a kill what was in them is gone, the rest is there."""
    folder = copied(victims.closed, tmp_path / "closed-case")
    for path in folder.rglob("*-wal"):
        path.unlink()
    found = await inspect(folder)
    assert stored(found) == RECORDS + EVENTS

    folder = copied(victims.live, tmp_path / "live-case")
    for path in folder.rglob("*-wal"):
        path.unlink()
    found = await inspect(folder)
    assert found.wrong == 0
    assert found.numbers[Lane.TELEMETRY][:900] == list(range(900))


async def test_a_deleted_segment_is_counted_as_missing(victims: Victims, tmp_path: Path) -> None:
    for whole in (victims.closed, victims.live):
        folder = copied(whole, tmp_path / "case")
        second = sorted((folder / "telemetry").glob("*.seg"))[1]
        second.unlink()
        found = await inspect(folder)
        assert found.lost.keys() == {"missing"}
        assert stored(found) + lost(found) == RECORDS + EVENTS


async def test_only_the_wal_is_left(victims: Victims, tmp_path: Path) -> None:
    """The file is gone, its WAL is not: its records are found there."""
    folder = copied(victims.live, tmp_path / "case")
    for wal in folder.rglob("*.seg-wal"):
        wal.with_name(wal.name.removesuffix("-wal")).unlink()
    found = await inspect(folder)
    assert stored(found) == RECORDS + EVENTS


async def test_strange_files_in_the_folder_are_left_alone(victims: Victims, tmp_path: Path) -> None:
    folder = copied(victims.closed, tmp_path / "case")
    (folder / "telemetry" / "notes.txt").write_text("checked the fuse")
    (folder / "telemetry" / "lost+found").mkdir()
    found = await inspect(folder)
    assert stored(found) == RECORDS + EVENTS
    assert (folder / "telemetry" / "notes.txt").exists()


async def test_a_wiped_folder_begins_a_new_epoch(victims: Victims) -> None:
    """(epoch, seq) never comes twice, even if everything known was deleted."""
    clock = ManualClock()
    before = await inspect(victims.closed, clock)
    shutil.rmtree(victims.closed)
    await clock.advance(2)
    found = await inspect(victims.closed, clock)
    assert stored(found) == 0
    assert before.ledger is not None
    assert found.ledger is not None
    for lane in Lane:
        assert found.ledger.lanes[lane].epoch > before.ledger.lanes[lane].epoch


@pytest.mark.parametrize("removed", [0, 250])
async def test_a_wiped_lane_misses_what_was_kept_and_not_what_had_gone_before(tmp_path: Path, removed: int) -> None:
    """``heads`` has stayed: it tells how many records there were."""
    clock = ManualClock()
    journal = await Journal.open(options(tmp_path, max_age_s=3600.0), clock=clock)
    reader = journal.reader("cloud")
    await fill(journal, 0, removed)
    reader.acknowledge(Lane.TELEMETRY, 1, removed)
    await clock.advance(4000)
    async with asyncio.timeout(20):
        while removed and journal.ledger().lanes["telemetry"].retired < removed:
            await clock.advance(1.1)
            await asyncio.sleep(0.01)
    await fill(journal, removed, 40)
    await journal.close()
    shutil.rmtree(tmp_path / "telemetry")
    found = await inspect(tmp_path, clock)
    assert (found.lost["missing"], found.ledger and found.ledger.lanes["telemetry"].retired) == (40, removed)
    assert (await inspect(tmp_path, clock)).lost == found.lost
