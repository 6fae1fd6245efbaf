"""Apply, confirm, go back, and what a process that dies in between leaves behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.objections import Conflict, NotThere, Outdated, Unavailable, Unfit
from gateway.revisions import store
from gateway.revisions.decide import MOST_STARTS
from gateway.revisions.revisions import FILE, Revisions, StartAnew
from gateway.state import State
from protocols.clock import ManualClock
from tests.gateway.revisions.conftest import ANNA, Life, lay, life, raw


async def settled(alive: Life, true: Any) -> None:  # Any: a question
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - what is waited for is seen from outside
            await asyncio.sleep(0.01)


async def standings(revisions: Revisions) -> list[tuple[int, str, str]]:
    return [(one.number, one.author, one.standing) for one in await revisions.history(None, 100)]


async def passes(alive: Life, seconds: float) -> None:
    await alive.clock.advance(seconds)


async def test_what_is_confirmed_runs_at_the_next_start_and_the_file_only_where_it_was_changed(tmp_path: Path) -> None:
    lay(tmp_path, "a")
    clock = ManualClock()
    async with life(tmp_path, clock) as alive:
        assert alive.uplinks == ["a"]
        await alive.revisions.apply(raw("a", "b"), ANNA, reason="more")
        assert alive.uplinks == ["a", "b"]
    async with life(tmp_path, clock) as alive:
        assert alive.uplinks == ["a", "b"]
        drift = await alive.revisions.drift()
        assert (drift.state, [one.path for one in drift.changes]) == ("differs", ["uplinks[b]"])
    lay(tmp_path, "c")
    async with life(tmp_path, clock) as alive:
        assert alive.uplinks == ["c"]
        assert await standings(alive.revisions) == [(3, "file", "confirmed"), (2, "user:anna", "confirmed"), (1, "file", "confirmed")]


async def test_nobody_confirms_and_it_goes_back_by_itself(tmp_path: Path) -> None:
    lay(tmp_path, "a")
    async with life(tmp_path, ManualClock()) as alive:
        applied = await alive.revisions.apply(raw("b"), ANNA, reason="try", confirm_within_s=120)
        assert applied.revision.standing == "trial"
        assert (alive.uplinks, alive.parts.kept) == (["b"], {"a"})  # the cursor of a is kept: going back needs it
        await passes(alive, 119)
        assert alive.uplinks == ["b"]
        await passes(alive, 1.1)
        await settled(alive, lambda: alive.uplinks == ["a"])
        back, tried, _ = await alive.revisions.history(None, 3)
        assert (back.author, back.origin, back.running) == ("gateway", "gateway", True)
        assert (tried.standing, tried.ended) == ("reverted", "it was not confirmed within 120 s")


async def test_what_is_confirmed_stays(tmp_path: Path) -> None:
    lay(tmp_path, "a")
    clock = ManualClock()
    async with life(tmp_path, clock) as alive:
        number = (await alive.revisions.apply(raw("b"), ANNA, confirm_within_s=120)).revision.number
        confirmed = await alive.revisions.confirm(number, ANNA)
        assert (confirmed.standing, confirmed.ended) == ("confirmed", "confirmed by user:anna")
        assert alive.parts.kept == {"b"}
        await passes(alive, 1000)
        assert alive.uplinks == ["b"]
        assert (await alive.revisions.confirm(number, ANNA)).number == number  # twice is fine
    async with life(tmp_path, clock) as alive:
        assert alive.uplinks == ["b"]


@pytest.mark.parametrize("passed", [0.0, 60.0])
async def test_a_trial_goes_on_over_a_crash_and_its_time_too(tmp_path: Path, passed: float) -> None:
    """The wall clock jumps as it likes: what is left is counted by the monotonic one."""
    lay(tmp_path, "a", journal={"max_bytes": 2**30})
    clock = ManualClock()
    async with life(tmp_path, clock) as alive:
        await alive.revisions.apply(raw("b", journal={"max_bytes": 2**25}), ANNA, confirm_within_s=120)
    await clock.advance(passed)
    clock.set_time_ns(17)
    async with life(tmp_path, clock) as alive:
        assert (alive.uplinks, alive.parts.kept) == (["b"], {"a", "b"})
        assert alive.journal.max_bytes == 2**30  # a document on trial drops no record for good
        await passes(alive, 119 - passed)
        assert alive.uplinks == ["b"]
        await passes(alive, 1.1)
        await settled(alive, lambda: alive.uplinks == ["a"])


async def test_a_trial_whose_time_ended_while_nothing_ran_is_not_started(tmp_path: Path) -> None:
    lay(tmp_path, "a")
    clock = ManualClock()
    async with life(tmp_path, clock) as alive:
        await alive.revisions.apply(raw("b"), ANNA, confirm_within_s=120)
    await clock.advance(120)
    async with life(tmp_path, clock) as alive:
        assert alive.uplinks == ["a"]
        assert [one[1:] for one in await standings(alive.revisions)] == [
            ("gateway", "confirmed"),
            ("user:anna", "reverted"),
            ("file", "confirmed"),
        ]


async def test_a_trial_does_not_outlive_a_restart_of_the_machine(tmp_path: Path) -> None:
    lay(tmp_path, "a")
    clock = ManualClock()
    async with life(tmp_path, clock) as alive:
        await alive.revisions.apply(raw("b"), ANNA, confirm_within_s=120)
    async with life(tmp_path, clock, boot="the next run") as alive:
        assert alive.uplinks == ["a"]


async def test_a_document_that_ends_the_process_is_started_a_few_times_and_no_more(tmp_path: Path) -> None:
    lay(tmp_path, "a")
    clock = ManualClock()
    async with life(tmp_path, clock) as alive:
        await alive.revisions.apply(raw("b"), ANNA, confirm_within_s=120)
    for _ in range(MOST_STARTS - 1):
        async with life(tmp_path, clock) as alive:
            assert alive.uplinks == ["b"]
    async with life(tmp_path, clock) as alive:
        assert alive.uplinks == ["a"]


async def test_a_swap_that_fails_is_taken_back_and_whoever_asked_is_told(tmp_path: Path) -> None:
    lay(tmp_path, "a")
    clock = ManualClock()
    async with life(tmp_path, clock) as alive:
        alive.parts.fails = 1
        with pytest.raises(Unavailable, match="no room"):
            await alive.revisions.apply(raw("b"), ANNA)
        assert alive.uplinks == ["a"]
        await settled(alive, lambda: not alive.revisions._turn.locked())
        assert (await alive.revisions.apply(raw("b"), ANNA)).changed
    async with life(tmp_path, clock) as alive:
        assert alive.uplinks == ["b"]


async def test_parts_that_cannot_go_back_end_the_process_and_the_next_one_runs_what_was_confirmed(tmp_path: Path) -> None:
    lay(tmp_path, "a")
    clock = ManualClock()

    async def fail() -> None:
        async with life(tmp_path, clock) as alive:
            await alive.revisions.apply(raw("b"), ANNA, confirm_within_s=120)
            alive.parts.fails = 1
            await passes(alive, 121)
            await asyncio.sleep(20)

    with pytest.raises(ExceptionGroup, match="unhandled") as group:
        await fail()
    assert isinstance(group.value.exceptions[0], StartAnew)  # the service meets it with a new start
    async with life(tmp_path, clock) as alive:
        assert alive.uplinks == ["a"]


async def test_one_change_at_a_time(tmp_path: Path) -> None:
    lay(tmp_path, "a")
    async with life(tmp_path, ManualClock()) as alive:
        alive.parts.held = asyncio.Event()
        first = asyncio.create_task(alive.revisions.apply(raw("b"), ANNA, confirm_within_s=120))
        await settled(alive, lambda: alive.revisions.on_trial)
        with pytest.raises(Conflict, match="another change"):
            await alive.revisions.apply(raw("c"), ANNA)
        alive.parts.held.set()
        await first
        await settled(alive, lambda: not alive.revisions._turn.locked())
        with pytest.raises(Conflict, match="waits to be confirmed"):
            await alive.revisions.apply(raw("c"), ANNA)
        with pytest.raises(Conflict, match="waits for nothing"):
            await alive.revisions.confirm(1, ANNA)


async def test_what_was_decided_on_another_revision_is_refused(tmp_path: Path) -> None:
    lay(tmp_path, "a")
    async with life(tmp_path, ManualClock()) as alive:
        base = (await alive.revisions.plan(raw("b"))).base
        await alive.revisions.apply(raw("c"), ANNA)
        with pytest.raises(Outdated, match="revision 2 runs"):
            await alive.revisions.apply(raw("b"), ANNA, base=base)


async def test_a_wrong_document_and_one_that_moves_the_journal_change_nothing(tmp_path: Path) -> None:
    lay(tmp_path, "a")
    async with life(tmp_path, ManualClock()) as alive:
        with pytest.raises(Unfit, match="the document has"):
            await alive.revisions.apply(raw("b", uplink=[]), ANNA)
        with pytest.raises(Unfit, match=r"journal\.path"):
            await alive.revisions.apply(raw("b", journal={"path": "elsewhere"}), ANNA)
        assert len(await standings(alive.revisions)) == 1


async def test_the_same_document_again_is_nothing_to_do(tmp_path: Path) -> None:
    lay(tmp_path, "a")
    async with life(tmp_path, ManualClock()) as alive:
        applied = await alive.revisions.apply(raw("a"), ANNA)
        assert (applied.changed, applied.plan.nothing, applied.revision.number) == (False, True, 1)


async def test_rollback_goes_to_what_was_confirmed_before_and_to_any_revision(tmp_path: Path) -> None:
    lay(tmp_path, "a")
    async with life(tmp_path, ManualClock()) as alive:
        for name in "bc":
            await alive.revisions.apply(raw(name), ANNA)
        await alive.revisions.roll_back(None, ANNA)
        assert alive.uplinks == ["b"]
        await alive.revisions.roll_back(1, ANNA)
        assert alive.uplinks == ["a"]
        with pytest.raises(NotThere):
            await alive.revisions.roll_back(17, ANNA)
        await alive.revisions.apply(raw("d"), ANNA, confirm_within_s=120)
        await alive.revisions.roll_back(None, ANNA, reason="no")
        assert alive.uplinks == ["a"]
        assert not alive.revisions.on_trial


async def test_the_file_ends_a_trial_and_a_wrong_file_does_not(tmp_path: Path) -> None:
    lay(tmp_path, "a")
    async with life(tmp_path, ManualClock()) as alive:
        await alive.revisions.apply(raw("b"), ANNA, confirm_within_s=120)
        (tmp_path / "site.yaml").write_text("holdfast: 2\n")
        await alive.revisions.take_file()
        assert alive.uplinks == ["b"]
        assert (await alive.revisions.drift()).state == "unreadable"
        lay(tmp_path, "c")
        await alive.revisions.take_file()
        assert (alive.uplinks, alive.parts.kept, alive.revisions.on_trial) == (["c"], {"c"}, False)
        await passes(alive, 1000)
        assert alive.uplinks == ["c"]


async def test_a_file_that_was_tried_and_not_confirmed_does_not_run_at_the_next_start(tmp_path: Path) -> None:
    """As Ansible does it: lay the file down, apply it on trial. Unconfirmed, it stays a file that differs."""
    lay(tmp_path, "a")
    clock = ManualClock()
    async with life(tmp_path, clock) as alive:
        lay(tmp_path, "b")
        await alive.revisions.apply(raw("b"), ANNA, confirm_within_s=120)
        await passes(alive, 121)
        await settled(alive, lambda: alive.uplinks == ["a"])
    async with life(tmp_path, clock) as alive:
        assert alive.uplinks == ["a"]
        assert (await alive.revisions.drift()).state == "differs"
        await alive.revisions.take_file()  # somebody says so: SIGHUP
        assert alive.uplinks == ["b"]


async def test_comments_are_no_drift(tmp_path: Path) -> None:
    lay(tmp_path, "a")
    async with life(tmp_path, ManualClock()) as alive:
        (tmp_path / "site.yaml").write_bytes(b"# for hall 2\n" + raw("a"))
        assert (await alive.revisions.drift()).state == "same-meaning"


async def test_the_history_has_an_end_and_keeps_what_going_back_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_REVISIONS", 1)
    lay(tmp_path, "a")
    clock = ManualClock()
    async with life(tmp_path, clock) as alive:
        await alive.revisions.apply(raw("b"), ANNA)
        for name in "cdef":
            await alive.revisions.apply(raw(name), ANNA, confirm_within_s=120)
            await alive.revisions.roll_back(None, FILE)
        assert len(await standings(alive.revisions)) <= 3
        await alive.revisions.apply(raw("g"), ANNA, confirm_within_s=120)
    async with life(tmp_path, clock) as alive:
        assert alive.uplinks == ["g"]
        await passes(alive, 121)
        await settled(alive, lambda: alive.uplinks == ["b"])


async def test_a_gateway_whose_state_cannot_be_kept_runs_its_file(tmp_path: Path) -> None:
    lay(tmp_path, "a")
    (tmp_path / "state").write_text("a file where a folder should be")
    clock = ManualClock()
    assert (await opened(tmp_path, clock)).trouble
    async with life(tmp_path, clock) as alive:
        assert alive.uplinks == ["a"]
        await alive.revisions.apply(raw("b"), ANNA)
        assert alive.uplinks == ["b"]
    async with life(tmp_path, clock) as alive:
        assert alive.uplinks == ["a"]


async def opened(folder: Path, clock: ManualClock) -> State:
    state = await State.open(folder / "state", (store.MIGRATIONS,), clock)
    await state.close()
    return state
