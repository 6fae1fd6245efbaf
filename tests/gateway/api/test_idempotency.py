"""Idempotency keys: a write is carried out once, however often it is sent, also across a restart; and what a body may be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from gateway.api.bodies import DEEPEST, depth
from gateway.idempotency import LONGEST_ANSWER, LONGEST_S, MOST_ANSWERS, Answer, Kept, _sweep
from gateway.idempotency import MIGRATIONS as TABLES
from gateway.identity.principal import Principal, Role
from gateway.state import State
from protocols.clock import ManualClock
from tests.gateway.api.conftest import Running, gateway, site_of, until
from tests.peers.libmodbus import LibmodbusServer

VERIFY = "/api/v1/journal/verification"


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


async def ended(plant: Running) -> None:
    await until("the check has ended", lambda: plant.appliance.verification.last.state == "ended")


async def test_the_same_request_with_the_same_key_is_carried_out_once(plant: Running) -> None:
    technician = await plant.as_role(Role.TECHNICIAN)
    first = await technician.post(VERIFY, headers=keyed("a"))
    assert (first.status_code, first.headers.get("idempotency-replayed")) == (202, None)
    await ended(plant)
    again = await technician.post(VERIFY, headers=keyed("a"))
    assert (again.status_code, again.headers["idempotency-replayed"], again.content) == (202, "true", first.content)
    assert plant.appliance.verification.last.state == "ended"  # nothing began anew
    other = await technician.post(VERIFY, headers=keyed("b"))
    assert other.json()["begun_ns"] > first.json()["begun_ns"]


async def test_the_same_key_with_another_request_is_refused(plant: Running) -> None:
    technician = await plant.as_role(Role.TECHNICIAN)
    await technician.post(VERIFY, headers=keyed("a"))
    other = await technician.post(VERIFY + "?other=1", headers=keyed("a"))
    assert (other.status_code, other.json()["type"]) == (422, "urn:holdfast:problem:idempotency-key-reused")


async def test_keys_are_each_callers_own_and_a_refusal_is_not_kept(plant: Running) -> None:
    one, other = await plant.as_role(Role.TECHNICIAN), await plant.as_role(Role.ADMINISTRATOR)
    first = await one.post(VERIFY, headers=keyed("a"))
    await ended(plant)
    theirs = await other.post(VERIFY, headers=keyed("a"))
    assert theirs.headers.get("idempotency-replayed") is None
    assert theirs.json()["begun_ns"] > first.json()["begun_ns"]
    viewer = await plant.as_role(Role.VIEWER)
    for _ in range(2):
        assert (await viewer.post(VERIFY, headers=keyed("a"))).status_code == 403


async def test_whoever_may_not_any_more_gets_no_answer_of_before(plant: Running) -> None:
    identity = plant.appliance.identity
    roles = (Role.TECHNICIAN, Role.VIEWER)
    sessions = [identity.begin_session(Principal(name="anna", kind="user", role=role), "password", "") for role in roles]
    before, after = [plant.client(secret) for secret, _ in sessions]
    assert (await before.post(VERIFY, headers=keyed("a"))).status_code == 202
    assert (await after.post(VERIFY, headers=keyed("a"))).status_code == 403


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
async def test_a_key_that_is_none_is_refused(plant: Running, key: str) -> None:
    technician = await plant.as_role(Role.TECHNICIAN)
    answer = await technician.post(
        VERIFY, headers=[("Idempotency-Key", key)] if key else [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    )
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:holdfast:problem:invalid")


async def test_an_answer_is_the_same_after_a_restart(server: LibmodbusServer, tmp_path: Path, free_port: Callable[[], int]) -> None:
    site = site_of(server, free_port())
    async with gateway(site, tmp_path) as before:
        token = await before.token(Role.TECHNICIAN)
        first = await before.client(token).post(VERIFY, headers=keyed("a"))
        await ended(before)
        await before.appliance.state.do(
            lambda db: db.execute("insert into idempotency select 'x' || id, print, begun_ns, 0, headers, null, 0 from idempotency")
        )
    async with gateway(site, tmp_path) as after:
        again = await after.client(token).post(VERIFY, headers=keyed("a"))
        assert (again.headers["idempotency-replayed"], again.content) == ("true", first.content)
        assert after.appliance.verification.last.state == "never"


async def test_what_was_cut_off_is_not_done_twice(tmp_path: Path) -> None:
    """Begun before a crash: nobody knows its end, and that is what is said."""
    clock = ManualClock()
    state = await State.open(tmp_path, [TABLES], clock)
    try:
        kept = Kept(state, clock)
        assert await kept.begin("id", "print") == "begun"
        assert await kept.begin("id", "print") == "running"
        reborn = Kept(state, clock)
        assert await reborn.begin("id", "print") == "unknown"
        assert await reborn.begin("id", "another") == "other"
        await kept.end("id", Answer(status=200, headers=[], body=b"x" * (LONGEST_ANSWER + 1)))
        assert await reborn.begin("id", "print") == Answer(status=200, headers=[], body=None)
        clock.set_time_ns(clock.time_ns() + (LONGEST_S + 1) * 10**9)
        assert await reborn.begin("id", "print") == "begun"
        await reborn.end("id", None)
        assert await reborn.begin("id", "another") == "begun"
    finally:
        await state.close()


async def test_a_disk_that_takes_nothing_stops_no_write(tmp_path: Path) -> None:
    """The table is gone: nothing can be stored, and what was carried out is not carried out again before the next start."""
    state = await State.open(tmp_path, [TABLES], ManualClock())
    try:
        kept = Kept(state, ManualClock())
        await state.do(lambda db: db.execute("drop table idempotency"))
        assert await kept.begin("id", "print") == "begun"
        answer = Answer(status=200, headers=[], body=b"done")
        await kept.end("id", answer)
        assert await kept.begin("id", "print") == answer
        assert await kept.begin("id", "another") == "other"
    finally:
        await state.close()


async def test_answers_are_bounded(tmp_path: Path) -> None:
    state = await State.open(tmp_path, [TABLES], ManualClock())
    try:
        rows = [(str(at), "p", at, 200, "[]", b"", 0) for at in range(1, MOST_ANSWERS + 100)]
        await state.do(lambda db: db.conn.executemany("insert into idempotency values (?,?,?,?,?,?,?)", rows))
        await state.do(lambda db: _sweep(db, 0))
        count = await state.do(lambda db: db.execute("select count(*) from idempotency").fetchone()[0])
        assert MOST_ANSWERS * 0.8 < count <= MOST_ANSWERS
    finally:
        await state.close()


async def test_many_at_once_with_one_key_are_carried_out_once(plant: Running) -> None:
    technician = await plant.as_role(Role.TECHNICIAN)
    answers: list[httpx.Response] = await asyncio.gather(*(technician.post(VERIFY, headers=keyed("a")) for _ in range(8)))
    fresh = [one for one in answers if one.status_code == 202 and "idempotency-replayed" not in one.headers]
    assert len(fresh) == 1
    assert {one.status_code for one in answers} <= {202, 409}


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ('{"a": [[1]]}', 0),
        ("[" * 40, 40),
        ("[" * 40 + "]" * 40 + "[" * 40, 40),
        (json.dumps("[" * 100), 0),
        (json.dumps(['"[', "\\[[" * 30]), 1),
    ],
)
def test_depth_counts_brackets_and_not_texts(text: str, levels: int) -> None:
    assert depth(text.encode()) == levels
    assert DEEPEST < 40
