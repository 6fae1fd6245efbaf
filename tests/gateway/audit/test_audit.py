"""The audit log on a real disk: what is taken is there again, in order, after whatever happens."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.audit import audit as audit_module
from gateway.audit import store
from gateway.audit.audit import Audit
from gateway.audit.chain import Entry, Head, entry_of, verify
from gateway.config.audit import AuditOptions
from protocols.clock import Clock, ManualClock, SystemClock
from tests.peers.disk import disk

DEADLINE_S: Final = 30.0


@asynccontextmanager
async def log_in(folder: Path, clock: Clock | None = None, options: AuditOptions | None = None) -> AsyncIterator[Audit]:
    audit = Audit(clock or SystemClock(), folder)
    audit.bound(options or AuditOptions())
    async with audit.kept():
        yield audit


def took(audit: Audit, count: int, first: int = 0, **more: Any) -> None:  # Any: as record takes them
    for number in range(first, first + count):
        audit.record(who="user:anna", action="create_user", on=f"user/{number}", outcome="done", **more)


async def entries(audit: Audit) -> list[Entry]:
    return [entry_of(line) async for portion in audit.export() for line in portion.splitlines()]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not true():  # noqa: ASYNC110 - a thread's work is seen from outside
            await asyncio.sleep(0.01)


async def test_what_is_recorded_is_there_again_in_order(tmp_path: Path) -> None:
    """Also after the gateway was stopped and started: the chain goes on."""
    for part in range(3):
        async with log_in(tmp_path) as audit:
            took(audit, 700, part * 700, before={"role": "viewer"}, after={"role": "operator"})
    async with log_in(tmp_path) as audit:
        found = await entries(audit)
        assert [entry.on for entry in found] == [f"user/{number}" for number in range(2100)]
        assert [entry.number for entry in found] == list(range(1, 2101))
        assert (found[5].before, found[5].after) == ({"role": "viewer"}, {"role": "operator"})
        verdict = await audit.verify()
        assert (verdict.holds, verdict.entries, verdict.head) == (True, 2100, audit.head)


async def test_the_newest_come_first_in_pages(tmp_path: Path) -> None:
    async with log_in(tmp_path) as audit:
        took(audit, 95)
        before, seen = None, list[int]()
        while True:
            page, before = await audit.page(lambda entry: entry.number % 2 == 0, before, 10)
            seen += [entry.number for entry, _ in page]
            if before is None:
                break
        assert seen == list(range(94, 0, -2))


async def test_files_rotate_the_oldest_go_and_the_chain_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was removed is an entry, and the head of it is where the verification begins."""
    monkeypatch.setattr(audit_module, "PORTION", 50)
    async with log_in(tmp_path, options=AuditOptions(max_bytes=1024 * 1024)) as audit:
        for part in range(14):
            took(audit, 500, part * 500, after={"fill": "x" * 100})
            await audit.settled()
        verdict = await audit.verify()
        assert verdict.holds
        assert verdict.first > 1
        assert sum(path.stat().st_size for path in store.files(tmp_path)) < 1.1 * 1024 * 1024
        page, _ = await audit.page(lambda entry: entry.action == "audit_removed", None, 1)
        assert page[0][0].after["number"] == verdict.first - 1 == store.removed_head(tmp_path).number
    (tmp_path / store.HEAD).unlink()
    assert "are missing" in store.check(tmp_path).broken[0].what
    store.files(tmp_path)[0].unlink()
    assert "are missing" in store.check(tmp_path).broken[0].what


async def test_old_entries_go_and_a_clock_that_errs_costs_little(tmp_path: Path) -> None:
    clock = ManualClock()
    day = 86_400 * 10**9
    async with log_in(tmp_path, clock, AuditOptions(max_days=16)) as audit:
        for _ in range(40):
            clock.set_time_ns(clock.time_ns() + day)
            took(audit, 1)
            await audit.settled()
        held = await entries(audit)
        assert clock.time_ns() - held[0].time_ns <= 18 * day
        clock.set_time_ns(2_145_916_800 * 10**9)  # 2038
        took(audit, 1)
        await audit.settled()
        assert len(await entries(audit)) >= len(held) - 2
        assert (await audit.verify()).holds


@pytest.mark.parametrize("cut", [1, 3, 40, 300])
async def test_a_torn_end_is_mended_and_noted(tmp_path: Path, cut: int) -> None:
    async with log_in(tmp_path) as audit:
        took(audit, 20)
    file = store.files(tmp_path)[-1]
    whole = file.read_bytes()
    length = len(whole) - whole[:-1].rindex(b"\n") - 1
    file.write_bytes(whole[:-cut])
    async with log_in(tmp_path) as audit:
        took(audit, 1, 20)
        found = await entries(audit)
        assert (await audit.verify()).holds
    assert [entry.action for entry in found[-2:]] == ["audit_mended", "create_user"]
    assert found[-2].number == 20 - (cut > length)


async def test_zeros_after_a_power_cut_are_mended(tmp_path: Path) -> None:
    async with log_in(tmp_path) as audit:
        took(audit, 5)
    with store.files(tmp_path)[-1].open("ab") as file:
        file.write(bytes(4096))
    async with log_in(tmp_path) as audit:
        found = await entries(audit)
        assert [entry.action for entry in found] == ["create_user"] * 5 + ["audit_mended"]
        assert found[-1].after["bytes"] == 4096


async def test_somebody_who_changes_a_file_is_found_out(tmp_path: Path) -> None:
    async with log_in(tmp_path) as audit:
        took(audit, 20)
        await audit.settled()
        file = store.files(tmp_path)[-1]
        file.write_bytes(file.read_bytes().replace(b"user/7", b"user/8"))
        verdict = await audit.verify()
        assert [each.number for each in verdict.broken] == [9]


async def test_whatever_is_recorded_neither_raises_nor_grows(tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    async with log_in(tmp_path) as audit:
        for odd in (endless, object(), {1: 2}, {"x": "\ud800"}, float("nan"), b"bytes", "x" * 10**6, 2**80, {"deep": [[[[1]]]]}):
            audit.record(who="\ud800" + "w" * 10**5, action="a\nb", outcome="done", detail="\x00\x1b[2J", before=odd, after=odd)
        found = await entries(audit)
        assert len(found) == 9
        assert (await audit.verify()).holds
        assert max(len(line) for line in store.lines(tmp_path)) < 40_000


async def test_a_flood_of_refusals_becomes_few_entries_and_their_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "TELL_S", 0.05)
    async with log_in(tmp_path) as audit:
        for number in range(5000):
            audit.refused(who="", action="sign_in", source=f"192.0.2.{number % 2}", status=401)
        await until(lambda: any(entry_of(line).action == "refusals_left_out" for line in store.lines(tmp_path)))
        found = await entries(audit)
        kept = sum(entry.action == "sign_in" for entry in found)
        assert 40 <= kept < 60
        assert sum(sum(entry.after.values()) for entry in found if entry.action == "refusals_left_out") == 5000 - kept


async def test_a_full_disk_stops_nobody_and_what_was_lost_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries wait in bounded memory; when there is room again they are written, with the count of what did not fit."""
    monkeypatch.setattr(audit_module, "RETRY_S", 0.05)
    monkeypatch.setattr(audit_module, "MOST_WAITING", 300)
    with disk(tmp_path, 8) as small:
        folder = small.mount / "audit"
        async with log_in(folder) as audit:
            took(audit, 50)
            await audit.settled()
            foreign = small.fill()
            began = time.perf_counter()
            took(audit, 1000, 50, after={"fill": "x" * 1000})
            assert time.perf_counter() - began < 5, "nobody waits for the disk"
            await until(lambda: bool(audit.trouble))
            assert "space" in audit.trouble
            took(audit, 500, 1050)
            assert audit.waiting <= 300
            assert (await audit.verify()).holds
            foreign.unlink()
            await until(lambda: not audit.trouble and not audit.waiting)
            took(audit, 1, 1550)
            found = await entries(audit)
            assert (await audit.verify()).holds
        lost = sum(entry.after["entries"] for entry in found if entry.action == "entries_lost")
        made = [entry for entry in found if entry.action == "create_user"]
        assert lost == audit.lost > 0
        assert len(made) + lost == 1551
        assert made[-1].on == "user/1550"
        assert [entry.on for entry in made[:100]] == [f"user/{number}" for number in range(100)], "the oldest are kept"


async def test_a_portion_that_was_written_in_part_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stood on the disk of it already is cut off before it is tried again: no entry stands twice."""
    monkeypatch.setattr(audit_module, "RETRY_S", 0.05)
    whole, failures = store._write, [errno.ENOSPC, errno.EIO]

    def failing(file: int, content: bytes) -> None:
        if failures and len(content) > 5000:
            whole(file, content[: len(content) * 2 // 3])
            raise OSError(failures.pop(), "no")
        whole(file, content)

    async with log_in(tmp_path) as audit:
        took(audit, 3)
        await audit.settled()
        monkeypatch.setattr(store, "_write", failing)
        took(audit, 100, 3)
        await until(lambda: not failures and not audit.waiting)
        assert [entry.on for entry in await entries(audit)] == [f"user/{number}" for number in range(103)]
        assert (await audit.verify()).holds


async def test_the_log_goes_on_where_somebody_removes_its_file(tmp_path: Path) -> None:
    """And the verification says what is missing."""
    async with log_in(tmp_path) as audit:
        took(audit, 10)
        await audit.settled()
    async with log_in(tmp_path) as audit:
        await audit.settled()
        for file in store.files(tmp_path):
            file.unlink()
        took(audit, 10)
        found = await entries(audit)
        assert [entry.number for entry in found] == list(range(11, 21))
        assert "entries 1 to 10 are missing" in (await audit.verify()).broken[0].what


async def test_a_disk_that_dies_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call fails: nothing raises, closing returns, and what was acknowledged is there when the disk is mounted again."""
    monkeypatch.setattr(audit_module, "RETRY_S", 0.05)
    with disk(tmp_path, 8) as small:
        folder = small.mount / "audit"
        async with log_in(folder) as audit:
            took(audit, 50)
            await audit.settled()
            head = audit.head
            small.cut()
            took(audit, 50, 50)
            await until(lambda: bool(audit.trouble))
        small.restore()
        verdict = verify(store.lines(folder), Head())
        assert verdict.holds
        assert verdict.head == head


BURST: Final = """
import asyncio, sys
from pathlib import Path
import structlog
from gateway.audit import Audit
from protocols.clock import SystemClock
structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
async def main():
    audit = Audit(SystemClock(), Path(sys.argv[1]))
    async with audit.kept():
        number = 0
        while True:
            for _ in range(200):
                audit.record(who="user:anna", action="create_user", on=str(number), outcome="done")
                number += 1
            await audit.settled()
            print(audit.head.number, audit.head.digest, flush=True)
asyncio.run(main())
"""


def test_kill_9_in_the_middle_of_a_burst_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    told = Head()
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", BURST, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
            out = child.stdout
            assert out is not None
            try:
                for _ in range(15):
                    number, digest = out.readline().split()
                    told = Head(int(number), digest)
            finally:
                os.kill(child.pid, signal.SIGKILL)
            rest = out.read().splitlines()
        if rest and len(rest[-1].split()) == 2 and len(rest[-1].split()[1]) == 64:
            told = Head(int(rest[-1].split()[0]), rest[-1].split()[1])
        written = [line for line in store.lines(tmp_path) if line.endswith(b"}\n")]
        verdict = verify(written, Head())
        assert verdict.holds, verdict.broken
        assert verdict.head.number >= told.number
        at = [line for line in written if entry_of(line).number == told.number]
        assert verify(at).head == told
