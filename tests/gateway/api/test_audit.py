"""The audit log from outside: who may read it, what stands in it, and that nobody can change it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import httpx

from gateway.audit.chain import Head, verify
from gateway.identity.principal import Permission, Role
from tests.gateway.api.conftest import TENANT, Running


async def listed(caller: httpx.AsyncClient, **wanted: str | int) -> list[dict[str, object]]:
    answer = await caller.get("/api/v1/audit", params=wanted)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, object]] = answer.json()["items"]
    return items


def some(plant: Running, count: int, who: str = "user:anna") -> None:
    for number in range(count):
        plant.appliance.audit.record(who=who, action="create_user", on=f"user/{number}", outcome="done", after={"role": "viewer"})


async def test_the_newest_entries_come_first_in_pages_and_filtered(plant: Running) -> None:
    admin = await plant.as_role(Role.ADMINISTRATOR)
    some(plant, 25)
    some(plant, 1, "user:ben")
    first = (await admin.get("/api/v1/audit", params={"action": "create_user", "who": "user:anna", "limit": 10})).json()
    rest = (await admin.get("/api/v1/audit", params={"action": "create_user", "who": "user:anna", "cursor": first["next"]})).json()
    assert [entry["on"] for entry in first["items"] + rest["items"]] == [f"user/{number}" for number in range(24, -1, -1)]
    assert rest["next"] is None
    time_ns = first["items"][4]["time_ns"]
    assert first["items"][4] in await listed(admin, since_ns=time_ns, until_ns=time_ns)
    assert await listed(admin, outcome="failed") == []
    assert (await admin.get("/api/v1/audit", params={"cursor": "x"})).status_code == 400


async def test_the_export_verifies_by_itself(plant: Running) -> None:
    admin = await plant.as_role(Role.ADMINISTRATOR)
    some(plant, 300)
    answer = await admin.get("/api/v1/audit/export")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    verdict = verify(answer.content.splitlines(), Head())
    assert verdict.holds
    told = (await admin.get("/api/v1/audit/verification")).json()
    assert (told["holds"], told["last"], told["digest"], told["trouble"]) == (True, verdict.head.number, verdict.head.digest, "")
    assert (await listed(admin, action="export_audit"))[0]["who"]
    part = verify((await admin.get("/api/v1/audit/export", params={"first": 100, "last": 109})).content.splitlines())
    assert (part.holds, part.first, part.entries) == (True, 100, 10)


async def test_only_administrators_of_the_whole_gateway_read_it(plant: Running) -> None:
    callers = [await plant.as_role(role) for role in (Role.VIEWER, Role.OPERATOR, Role.TECHNICIAN, Role.ENGINEER)]
    callers.append(await plant.as_role(Role.ADMINISTRATOR, TENANT))
    callers.append(await plant.as_role(Role.ADMINISTRATOR, scopes=frozenset({Permission.MANAGE_USERS})))
    for path in ("/api/v1/audit", "/api/v1/audit/export", "/api/v1/audit/verification"):
        assert [(await caller.get(path)).status_code for caller in callers] == [403] * 6
        assert (await plant.client().get(path)).status_code == 401


async def test_nobody_can_change_it_through_the_api(plant: Running) -> None:
    """N40: no operation writes under /audit, whatever the role and the method."""
    admin = await plant.as_role(Role.ADMINISTRATOR)
    some(plant, 3)
    before = (await admin.get("/api/v1/audit/export", params={"last": 3})).content
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in ("/api/v1/audit", "/api/v1/audit/export", "/api/v1/audit/1", "/api/v1/audit/verification"):
            assert (await admin.request(method, path, json={})).status_code in (404, 405)
    assert (await admin.get("/api/v1/audit/export", params={"last": 3})).content == before


async def test_every_write_becomes_an_entry_whoever_tries_it(plant: Running) -> None:
    """Done, refused for the role, refused for want of credentials, and what does not fit: each once, with who and what."""
    admin, viewer, nobody = await plant.as_role(Role.ADMINISTRATOR), await plant.as_role(Role.VIEWER), plant.client()
    for caller in (viewer, nobody, admin):
        await caller.post("/api/v1/certificates", json={"csr": "secret-canary"})
    entries = (await listed(admin, action="issue_certificate"))[::-1]
    assert [(entry["status"], entry["outcome"]) for entry in entries] == [(403, "refused"), (401, "refused"), (400, "refused")]
    assert [bool(entry["who"]) for entry in entries] == [True, False, True]
    assert all(entry["source"] == "127.0.0.1" and entry["request"] == "POST /api/v1/certificates" for entry in entries)
    assert "needs manage-certificates" in str(entries[0]["detail"])
    assert "canary" not in (await admin.get("/api/v1/audit/export")).text, "no body is copied"
    for _ in range(60):
        await nobody.post("/api/v1/certificates", json={})
    assert len(await listed(admin, action="issue_certificate", limit=1000)) <= 30, "a flood does not fill it"


async def _cli(*arguments: str | Path) -> tuple[int, str, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "audit", *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(child.communicate(), 60)
    return child.returncode or 0, out.decode(), err.decode()


async def test_the_command_line_shows_exports_and_verifies(plant: Running, tmp_path: Path) -> None:
    """Of a running gateway over its control socket, and an exported file by itself."""
    document = {"holdfast": 1, "gateway": {"group": "plant", "name": "edge"}, "journal": {"path": str(tmp_path / "journal")}}
    site, kept = tmp_path / "site.json", tmp_path / "kept.ndjson"
    await asyncio.to_thread(site.write_text, json.dumps(document))
    some(plant, 40)
    code, out, err = await _cli(site, "-n", "45")
    told = [entry["on"] for entry in map(json.loads, out.splitlines()) if entry["action"] == "create_user"]
    assert (code, told) == (0, [f"user/{n}" for n in range(40)]), err
    code, out, err = await _cli(site, "--export")
    assert (code, err) == (0, "")
    await asyncio.to_thread(kept.write_text, out)
    assert (await _cli("--file", kept))[0] == 0
    await asyncio.to_thread(kept.write_text, out.replace("user/17", "user/18"))
    code, out, err = await _cli("--file", kept)
    assert (code, json.loads(out)["holds"]) == (1, False)
    assert "broken at line" in err
    code, out, err = await _cli(site, "--verify")
    assert (code, json.loads(out)["holds"]) == (0, True), err
