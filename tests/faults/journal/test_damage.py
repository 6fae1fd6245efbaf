"""Files that are not what was written: flipped bits, zeros, cut ends, absent side files."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from gateway.journal import Lane
from protocols.clock import ManualClock
from tests.faults.journal.conftest import EVENTS, RECORDS, Victims
from tests.faults.journal.plant import LONG, Findings, copied, files, inspect

FLIPS = 10_000 if LONG else 500
CUT = 64 * 1024
CUT_STEP = 1 if LONG else 97
CUTS = 10**9 if LONG else 60
PAGE = 8192


def stored(found: Findings) -> int:
    return sum(len(numbers) for numbers in found.numbers.values())


def lost(found: Findings) -> int:
    return sum(found.lost.values())


async def test_a_flipped_bit_costs_at_most_one_record_and_never_gives_a_wrong_value(
    victims: Victims, dice: random.Random, tmp_path: Path
) -> None:
    """Over all files, before and after a clean stop."""
    harmed = 0
    for case in range(FLIPS):
        folder = copied(victims.live if case % 2 else victims.closed, tmp_path / "case")
        targets = files(folder)
        target = dice.choices(targets, [path.stat().st_size for path in targets])[0]
        content = bytearray(target.read_bytes())
        at, bit = dice.randrange(len(content)), dice.randrange(8)
        content[at] ^= 1 << bit
        target.write_bytes(content)

        found = await inspect(folder)
        where = f"{target.name} byte {at} bit {bit}"
        assert found.wrong == 0, where
        assert lost(found) <= 1, (where, found.lost)
        assert stored(found) + lost(found) == RECORDS + EVENTS, where
        harmed += lost(found)
    print(f"{FLIPS} flips, {harmed} records quarantined")  # noqa: T201 - the campaign's figure
    assert harmed, "no flip ever met a record: the campaign tests nothing"


async def test_a_file_cut_anywhere_opens_and_what_is_known_to_be_absent_is_counted(
    victims: Victims, dice: random.Random, tmp_path: Path
) -> None:
    """The last 64 KiB of each file, in steps of 97 bytes (a sample of them, unless the campaign is long)."""
    cases = [
        (whole, path.relative_to(whole), size)
        for whole in (victims.live, victims.closed)
        for path in files(whole)
        for size in range(max(0, path.stat().st_size - CUT), path.stat().st_size, CUT_STEP)
    ]
    for whole, name, size in dice.sample(cases, min(CUTS, len(cases))):
        folder = copied(whole, tmp_path / "case")
        with (folder / name).open("r+b") as file:
            file.truncate(size)
        found = await inspect(folder)
        assert found.wrong == 0
        assert stored(found) + lost(found) <= RECORDS + EVENTS
        if not name.name.endswith("-wal"):  # what was in a file is told by its successor or by the state
            known = stored(found) + lost(found)
            assert known == RECORDS + EVENTS or is_newest(folder, name), (name, size, known)


def is_newest(folder: Path, name: Path) -> bool:
    return max(path.name for path in (folder / name.parent).glob("*.seg")) >= name.name


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
