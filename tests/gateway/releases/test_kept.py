"""One release after another on the same state, forth and back, and the power going in between."""

from __future__ import annotations

import fcntl
import importlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database, Migrations

from gateway.app import MIGRATIONS
from gateway.releases import kept
from gateway.releases.kept import MOST_ASIDE, MOST_KEPT, listed
from gateway.state import FILE, State
from protocols.clock import ManualClock


def release(number: int) -> Sequence[Migrations]:
    """Release 1 knows people by name; 2 adds a table; 3 adds another part; 4 keeps people in another way, so that 3 cannot go on."""
    part = Migrations("people")

    def first(db: Database) -> None:
        db.table("person").create({"name": str}, pk="name")

    def more(db: Database) -> None:
        db.table("room").create({"name": str}, pk="name")

    def split(db: Database) -> None:
        db.execute("CREATE TABLE human(first TEXT, last TEXT)")
        db.execute("INSERT INTO human SELECT name, '' FROM person")
        db.execute("DROP TABLE person")

    def own(db: Database) -> None:
        db.table("other").create({"name": str}, pk="name")

    part(name="_0001_people")(first)
    if number >= 2:
        part(name="_0002_rooms")(more)
    other = Migrations("other")
    other(name="_0001_other")(own)
    if number >= 4:
        part(name=f"_0003_split{kept.BREAKS}")(split)
    return (part, other) if number >= 3 else (part,)


async def at(folder: Path, number: int, work: Callable[[Database], Any], lock: Path | None = None) -> tuple[Any, State]:
    """What ``work`` gives in a state opened by this release."""
    state = await State.open(folder, release(number), ManualClock(), lock=lock)
    try:
        return await state.do(work), state
    finally:
        await state.close()


def people(db: Database) -> list[str]:
    table = "person" if "person" in db.table_names() else "human"
    return [str(next(iter(row.values()))) for row in db.table(table).rows]


def add(name: str) -> Callable[[Database], None]:
    def work(db: Database) -> None:
        if "person" in db.table_names():
            db.table("person").insert({"name": name})
        else:
            db.table("human").insert({"first": name, "last": ""})

    return work


async def test_a_migration_keeps_the_file_as_it_was_and_the_release_before_goes_on_with_what_is_additive(tmp_path: Path) -> None:
    await at(tmp_path, 1, add("ada"))
    before = sqlite3.connect(tmp_path / FILE)
    dump = list(before.iterdump())
    before.close()
    found, state = await at(tmp_path, 3, people)
    assert (found, state.trouble, state.notes) == (["ada"], "", ())
    (one,) = listed(tmp_path)
    assert (one.about.kind, one.about.migrations) == ("before", ("people/_0001_people",))
    copy = sqlite3.connect(one.folder / FILE)
    assert list(copy.iterdump()) == dump
    copy.close()
    assert (one.folder / FILE).stat().st_mode & 0o777 == (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    await at(tmp_path, 1, add("bea"))  # the release before: it knows nothing of any of this
    found, state = await at(tmp_path, 3, people)
    assert (found, state.notes, len(listed(tmp_path))) == (["ada", "bea"], (), 1)


async def test_a_file_that_an_older_release_cannot_use_is_put_aside_and_said_and_never_merged(tmp_path: Path) -> None:
    await at(tmp_path, 3, add("ada"))
    await at(tmp_path, 4, add("bea"))
    found, state = await at(tmp_path, 3, people)
    assert found == ["ada"]
    assert not state.trouble
    assert "1 in human" not in state.notes[0]  # human is a table of its own there
    assert "2 in human" in state.notes[0]
    await at(tmp_path, 3, add("eve"))
    _, state = await at(tmp_path, 3, people)
    assert len(state.notes) == 1  # said at every start
    found, state = await at(tmp_path, 4, people)
    assert found == ["ada", "eve"]
    assert len(state.notes) == 1  # going forward merges nothing, and says so
    (aside,) = [each for each in listed(tmp_path) if each.about.kind == "newer"]
    newer = sqlite3.connect(aside.folder / FILE)
    assert [row[0] for row in newer.execute("SELECT first FROM human ORDER BY first")] == ["ada", "bea"]
    newer.close()


async def test_without_a_kept_copy_the_state_begins_anew_and_the_newer_one_is_kept(tmp_path: Path) -> None:
    await at(tmp_path, 4, add("ada"))
    found, state = await at(tmp_path, 3, people)
    assert (found, state.trouble, len(state.notes)) == ([], "", 1)


async def test_a_migration_that_fails_has_touched_nothing(tmp_path: Path) -> None:
    """A release that cannot migrate what it finds ends, and the one before starts on the file as it was."""
    await at(tmp_path, 1, add("ada"))
    before = (tmp_path / FILE).read_bytes()
    part, other = release(3)

    def fails(db: Database) -> None:
        raise RuntimeError("a defect of the release")

    other(name="_0002_fails")(fails)
    with pytest.raises(RuntimeError, match="defect"):
        kept.fit(kept.Place(tmp_path, FILE, "9.9.9", 1), (part, other))
    assert (tmp_path / FILE).read_bytes() == before
    assert (await at(tmp_path, 1, people))[0] == ["ada"]


async def test_a_part_that_opens_the_file_alone_knows_nothing_of_the_others_and_moves_nothing(tmp_path: Path) -> None:
    """What a gateway does whose document is wrong: it asks for revisions alone."""
    await at(tmp_path, 4, add("ada"))
    state = await State.open(tmp_path, release(4)[1:], ManualClock())
    await state.close()
    assert (await at(tmp_path, 4, people))[0] == ["ada"]
    assert not listed(tmp_path)


class Cut(BaseException):
    """The power goes."""


STEPS = ("sqlite3.connect", "os.open", "pathlib.Path.rename", "pathlib.Path.replace", "pathlib.Path.unlink", "pathlib.Path.mkdir")


@pytest.mark.parametrize(("before", "after"), [(1, 3), (4, 3)])
async def test_wherever_the_power_goes_both_releases_open_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    """Forward from 1 to 3 and back from 4 to 3: cut before each step that the disk sees, then either release, then on."""
    survived = 0
    for step in range(0, 1000, 2):  # each second one: the steps between two are syncs, mostly
        folder = tmp_path / str(step)
        await at(folder, 3 if before == 4 else before, add("ada"))
        await at(folder, before, add("bea"))
        with monkeypatch.context() as patch:
            left = [step]
            for name in STEPS:
                cut_at(patch, name, left)
            try:
                kept.fit(kept.Place(folder, FILE, "9.9.9", 1), release(after))
            except Cut:
                survived += 1
            else:
                break
        expected = ["ada", "bea"]
        assert (await at(folder, before, people))[0] in (expected, ["ada"])
        found, state = await at(folder, after, people)
        assert (found, state.trouble) == (expected if before == 1 else ["ada"], "")
        assert before == 1 or len(state.notes) in (1, 2), state.notes  # twice, where the cut came after the exchange
    assert survived > 4


def cut_at(patch: pytest.MonkeyPatch, name: str, left: list[int]) -> None:
    module, _, attribute = name.rpartition(".")
    owner: Any = Path if module == "pathlib.Path" else importlib.import_module(module)  # Any: a module, or a class
    real = getattr(owner, attribute)

    def cut(*given: Any, **named: Any) -> Any:  # Any: whatever it takes
        left[0] -= 1
        if left[0] < 0:
            raise Cut
        return real(*given, **named)

    patch.setattr(owner, attribute, cut)


async def test_a_file_that_a_running_gateway_uses_is_not_taken_from_under_it(tmp_path: Path) -> None:
    await at(tmp_path, 1, add("ada"))
    lock = tmp_path / "lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        _, state = await at(tmp_path, 3, people, lock)
        assert "another gateway runs" in state.trouble
    found, state = await at(tmp_path, 3, people, lock)
    assert (found, state.trouble) == (["ada"], "")


async def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    await at(tmp_path, 3, add("ada"))
    for turn in range(MOST_KEPT + 2):
        await at(tmp_path, 4, add(f"new {turn}"))
        await at(tmp_path, 3, add(f"old {turn}"))
    kinds = [each.about.kind for each in listed(tmp_path)]
    assert (kinds.count("before"), kinds.count("newer")) == (MOST_KEPT, MOST_ASIDE)


async def test_todays_migrations_let_the_release_before_go_on(tmp_path: Path) -> None:
    """What release 0.1.0 knew is all there still, and no more is asked of it: a table may only have got columns that may be left out."""
    state = await State.open(tmp_path, MIGRATIONS, ManualClock())
    try:
        tables = await state.do(lambda db: {one.name: {column.name for column in one.columns} for one in db.tables})
        must = await state.do(
            lambda db: {
                (one.name, column.name) for one in db.tables for column in one.columns if column.notnull and column.default_value is None
            }
        )
    finally:
        await state.close()
    fixture = sqlite3.connect(":memory:")
    fixture.executescript((Path(__file__).parent / "state-0.1.0.sql").read_text())
    old = Database(fixture)
    for table in old.tables:
        columns = {column.name for column in table.columns}
        assert columns <= tables[table.name], table.name
        assert not {name for of, name in must if of == table.name} - columns, table.name
    fixture.close()
