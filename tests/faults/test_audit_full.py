"""The disk of the audit log is full: commands through the API go on as before, and the log tells the rest when there is room (N40)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from gateway.identity.principal import Role
from tests.gateway.api.conftest import gateway, site_of, until
from tests.peers.disk import disk
from tests.peers.libmodbus import LibmodbusServer, registers


async def test_control_goes_on_while_the_audit_log_cannot_be_written(tmp_path: Path, free_port: Callable[[], int]) -> None:
    with disk(tmp_path, 16) as small:
        async with LibmodbusServer(units=[1, 2]) as server:
            await server.set(1, "holding", 0, *registers("f", 230.5))
            await server.set(2, "holding", 0, *registers("f", 230.5))
            site = site_of(server, free_port(), state_path=str(small.mount / "state"))
            async with gateway(site, tmp_path) as plant:
                operator, admin = await plant.as_role(Role.OPERATOR), await plant.as_role(Role.ADMINISTRATOR)
                viewer = await plant.as_role(Role.VIEWER)
                foreign = await asyncio.to_thread(small.fill)
                for value in range(10):
                    body = {"device": "meter-1", "tag": "setpoint", "value": 100 + value}
                    answer = await operator.post("/api/v1/commands", params={"wait_s": 10}, json=body)
                    assert (answer.status_code, answer.json()["stage"]) == (200, "verified"), answer.text
                    assert (await viewer.post("/api/v1/commands", json=body)).status_code == 403
                audit = plant.appliance.audit
                for _ in range(200):  # more than what is left of the last block
                    audit.record(who="test", action="fill", outcome="done", after="x" * 1000)
                await until("the log says that it cannot", lambda: "space" in audit.trouble)
                assert await server.get(1, "holding", 10, 1) == [109]
                told = (await admin.get("/api/v1/audit/verification")).json()
                assert (told["holds"], bool(told["trouble"])) == (True, True)
                await asyncio.to_thread(foreign.unlink)
                await until("it is written again", lambda: not audit.trouble and not audit.waiting)
                told = (await admin.get("/api/v1/audit/verification")).json()
                assert (told["holds"], told["lost"], told["trouble"]) == (True, 0, "")
                found = (await admin.get("/api/v1/audit", params={"action": "create_command", "limit": 100})).json()["items"]
                assert sorted(entry["outcome"] for entry in found) == ["done"] * 10 + ["refused"] * 10
