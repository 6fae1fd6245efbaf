"""The walk over the whole API: every operation refuses whoever may not, and a tenant hears of nothing but its own.

New operations are judged as soon as they are declared: the requests are made from the OpenAPI document.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio

from gateway.identity.principal import LEAST_ROLE, Permission, Role
from tests.gateway.api.conftest import DEADLINE_S, TENANT, Running, until
from tests.gateway.api.judge import NOBODY, THEIRS, Op, all_operations, judged

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPERATIONS: Final = tuple(all_operations())
STREAMS: Final = {"follow_live_events"}
"""What answers without end: its own tests look at what it tells."""
NOT_STATE: Final = {"audit", "audit_entry", "audit_log", "session"}
"""Tables that say who came, and not what is."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plant(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with judged(tmp_path_factory.mktemp("walk")) as one:
        async with asyncio.timeout(DEADLINE_S):
            while await one.appliance.state.do(lambda db: db.table("device").count) < 3:  # noqa: ASYNC110 - a table tells nobody
                await asyncio.sleep(0.05)
        yield one


async def test_whoever_may_not_is_refused_and_changes_nothing(plant: Running) -> None:
    """Every operation x {nobody, a forged token, an expired one, a forged session, a role too low, a token without the scope, a tenant}."""
    strangers = [
        plant.client(),
        plant.client("hft_" + "x" * 43),
        plant.client(await plant.token(Role.ADMINISTRATOR, lifetime_s=0)),
        plant.client("hfs_" + "x" * 43),
        plant.client(cookies={"holdfast_session": "hfs_" + "x" * 43}),
        plant.client("no token at all"),
    ]
    by_role = {role: await plant.as_role(role) for role in Role}
    narrowed = {each: await plant.as_role(Role.ADMINISTRATOR, scopes=frozenset(Permission) - {each}) for each in Permission}
    tenant = await plant.as_role(Role.ADMINISTRATOR, TENANT)
    before = await state_of(plant)
    wrong: list[str] = []
    for op in OPERATIONS:
        if op.reach == "public":
            continue
        permission = Permission(op.permission)
        least = LEAST_ROLE[permission]
        low = [client for role, client in by_role.items() if role.rank < least.rank]
        refused = [(client, 401) for client in strangers] + [(client, 403) for client in (*low, narrowed[permission])]
        refused += [(tenant, 403)] if op.reach == "gateway" else []
        wrong += [said for client, status in refused if (said := await wrongly(client, op, status))]
    assert not wrong, "\n".join(wrong)
    assert await state_of(plant) == before


async def wrongly(client: httpx.AsyncClient, op: Op, status: int) -> str:
    answer = await client.request(**op.request())
    problem = answer.headers.get("content-type") == "application/problem+json"
    right = answer.status_code == status and problem and answer.json()["status"] == status
    return "" if right else f"{op.id}: {answer.status_code} instead of {status}: {answer.text[:200]}"


async def state_of(plant: Running) -> dict[str, str]:
    """What an operation may change, as digests: tables, document, what the meters hold, the check of the journal."""

    def tables(db: Any) -> dict[str, str]:  # Any: a Database
        kept = {name: [{**row, "used_ns": 0} for row in db.table(name).rows] for name in db.table_names() if name not in NOT_STATE}
        return {name: hashlib.sha256(repr(rows).encode()).hexdigest() for name, rows in kept.items()}

    appliance = plant.appliance
    held = [await plant.meters.get(unit, "holding", 10) for unit in (1, 2, 3)]  # type: ignore[attr-defined]  # judged sets it
    document = hashlib.sha256(repr(appliance.site).encode()).hexdigest()
    return {**await appliance.state.do(tables), "document": document, "held": str(held), "check": appliance.verification.last.state}


async def test_no_operation_is_without_its_guard() -> None:
    """Public are health, signing in and what one must know before: nothing else, and nothing by oversight."""
    public = {op.id for op in OPERATIONS if op.reach == "public"}
    known = {"get_health", "get_readiness", "create_session", "create_claim", "get_authority_certificate", "get_revocation_list"}
    own_proof = {"begin_oidc", "finish_oidc", "enrol_device", "renew_device_certificate"}
    """They look at a proof of their own: the identity provider's, an enrolment code, the certificate of the connection."""
    assert public <= known | own_proof
    assert all(op.permission for op in OPERATIONS if op.reach != "public")


async def test_a_tenant_hears_of_nothing_but_its_own(plant: Running) -> None:
    """Every operation about devices that only reads, asked as it stands: no name of anybody else's is in the answer."""
    builder = await plant.as_role(Role.ADMINISTRATOR, TENANT)
    await seed(plant)
    wrong = []
    for op in OPERATIONS:
        if op.reach in ("devices", "own") and op.method == "get" and op.id not in STREAMS and op.id != "get_openapi":
            answer = await builder.request(**op.request(device="meter-2"))
            heard = [name for name in THEIRS if name in answer.text.replace(f'"{op.request(device="meter-2")["url"]}"', "")]
            wrong += [f"{op.id}: {heard}: {answer.text[:300]}"] if heard else []
    assert not wrong, "\n".join(wrong)


async def test_what_is_anybody_elses_is_as_what_is_not_there(plant: Running) -> None:
    """Every operation about devices with somebody else's name in its path or body answers as for a name that nothing has."""
    builder = await plant.as_role(Role.ADMINISTRATOR, TENANT)
    ids = await seed(plant)
    before = await state_of(plant)
    wrong, asked = [], 0
    for op in OPERATIONS:
        if op.reach != "devices" or op.id in STREAMS:
            continue
        for theirs, nobodys in pairs(op, ids):
            asked += 1
            one, other = await builder.request(**theirs), await builder.request(**nobodys)
            if (one.status_code, plain(one)) != (other.status_code, plain(other)) or one.status_code < 400:
                wrong.append(f"{op.id}: {one.status_code} {one.text[:250]}\n   instead of {other.status_code} {other.text[:250]}")
    assert not wrong, "\n".join(wrong)
    assert asked >= 18
    assert await state_of(plant) == before


def pairs(op: Op, ids: dict[str, str]) -> list[tuple[dict[str, Any], dict[str, Any]]]:  # Any: what httpx takes
    """The same request about something of somebody else's, and about nothing."""
    found = []
    theirs = {"device": "meter-1", "connection": "cellar", **ids}
    for part in op.parts:
        if part in theirs:
            found.append((op.request(**{part: theirs[part]}), op.request(**{part: NOBODY})))
        elif op.id in theirs:
            found.append((op.request(**{part: theirs[op.id]}), op.request(**{part: NOBODY})))
    body = op.request().get("json")
    if body is not None and not op.parts and '"device":' in json.dumps(body):
        one, other = op.request(), op.request()
        one["json"], other["json"] = renamed(body, "meter-1"), renamed(body, NOBODY)
        found.append((one, other))
    return found


def renamed(body: Any, device: str) -> Any:  # Any: JSON
    if isinstance(body, dict):
        return {key: device if key == "device" else renamed(each, device) for key, each in body.items()}
    return [renamed(each, device) for each in body] if isinstance(body, list) else body


def plain(answer: httpx.Response) -> str:
    """An answer without the names that were asked for."""
    text = answer.text
    for name in (*_SEEDED.values(), *THEIRS, NOBODY):
        text = text.replace(name, "NAME")
    return text


_SEEDED: Final[dict[str, str]] = {}


async def seed(plant: Running) -> dict[str, str]:
    """Things about meter-1 that the tenant may not know of: a command, a lock-out, a wish in its shadow, a repair. Ids by operation."""
    if _SEEDED:
        return _SEEDED
    admin = await plant.as_role(Role.ADMINISTRATOR)
    command = await admin.post("/api/v1/commands", json={"device": "meter-1", "tag": "setpoint", "value": 11, "reason": "canary meter-1"})
    assert command.status_code < 300, command.text
    lock_out = await admin.post("/api/v1/lock-outs", json={"scope": "device", "name": "meter-3", "why": "canary cellar"})
    assert lock_out.status_code < 300, lock_out.text
    _SEEDED.update(dict.fromkeys(("get_command", "cancel_command"), command.json()["id"]))
    _SEEDED["lift_lock_out"] = str(lock_out.json()["id"])
    done = f"/api/v1/commands/{command.json()['id']}"
    answer = await admin.get(done, params={"wait_s": 5})
    assert answer.status_code == 200, answer.text
    await until("the journal took it", lambda: plant.appliance.journal.ledger().lanes["events"].appended > 0)
    return _SEEDED


async def test_no_name_breaks_out_of_where_it_stands(plant: Running) -> None:
    """Control characters, terminal escapes, line ends and HTML in names come back as data, if at all (N17, N18)."""
    admin = await plant.as_role(Role.ADMINISTRATOR)
    evil = "\x1b]0;owned\x07\r\nX-Evil: 1\r\n\r\n<script>alert(1)</script>\u202e\u2028"
    for op in OPERATIONS:
        if op.method != "get" or op.id in STREAMS:
            continue
        for part in [*op.parts, *(one["name"] for one in op.said.get("parameters", []) if one["in"] == "query")]:
            request = op.request(**{part: "%1B%5D0;owned%07%0D%0AX-Evil:%201%0D%0A%3Cscript%3E"})
            request["params"] = {**request["params"], **({part: evil} if part not in op.parts else {})}
            answer = await admin.request(**request)
            assert answer.status_code < 500, (op.id, part, answer.text)
            assert "x-evil" not in answer.headers
            if b"owned" in answer.content:
                assert "json" in answer.headers["content-type"], op.id
                assert not any(sign in answer.content for sign in (b"\x1b", b"\r", b"\x07")), op.id


async def test_what_no_operation_is_is_said_in_problem_details(plant: Running) -> None:
    viewer = await plant.as_role(Role.VIEWER)
    gone, wrong_method = await viewer.get("/api/v1/none"), await viewer.put("/api/v1/gateway")
    assert (gone.status_code, wrong_method.status_code) == (404, 405)
    assert {one.headers["content-type"] for one in (gone, wrong_method)} == {"application/problem+json"}
    assert "GET" in wrong_method.headers["allow"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"device": 1}', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"x": ' * 40 + b"1" + b"}" * 40, "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'"' + b"x" * (1024 * 1024) + b'"', "application/json", 413),
        (b"device=meter-1", "application/x-www-form-urlencoded", 415),
        (b"\x80", "application/msgpack", 415),
        (b"<a/>", "text/xml", 415),
    ],
)
async def test_a_body_that_is_none_is_refused(plant: Running, content: bytes, kind: str, status: int) -> None:
    admin = await plant.as_role(Role.ADMINISTRATOR)
    answer = await admin.post("/api/v1/commands", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
