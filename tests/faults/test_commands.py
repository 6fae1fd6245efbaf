"""A gateway that is killed while a command is on its way says afterwards that nobody knows, once, and carries it out no second time."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

from gateway import control, questions
from gateway.commands.questions import AskCommand
from gateway.journal import Lane
from tests.gateway.api.conftest import meters, until
from tests.peers.holdfast import Holdfast
from tests.peers.libmodbus import LibmodbusServer

WISH = AskCommand(device="meter-1", tag="setpoint", value=21, wait_s=30)


async def ended(folder: Path) -> list[dict[str, Any]]:
    """What the events lane says became of commands. Any: as JSON has it."""
    async with aclosing(control.ask(folder, questions.Tail(lane=Lane.EVENTS, records=1000))) as lines:
        records = [line async for line in lines if line.get("device") == "_commands"]
    return [dict(zip(record["tags"], record["values"], strict=True)) if "tags" in record else record for record in records]


async def recorded(folder: Path) -> list[dict[str, Any]]:
    """The same, once there is something: it is gathered and made durable shortly after the start. Any: as above."""
    async with asyncio.timeout(20):
        while not (told := await ended(folder)):  # noqa: ASYNC110 - what is waited for is seen from outside
            await asyncio.sleep(0.05)
    return told


async def asked(folder: Path) -> None:
    """The gateway dies before it answers."""
    try:
        async with aclosing(control.ask(folder, WISH)) as lines:
            async for line in lines:
                raise AssertionError(f"it was answered: {line}")
    except (control.ControlError, ConnectionError):
        return


async def test_what_was_on_its_way_when_the_gateway_was_killed_is_unknown_and_stays_undone(tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    async with LibmodbusServer(units=[1]) as server:
        site = {
            "holdfast": 1,
            "gateway": {"group": "plant", "name": "edge"},
            "journal": {"path": "journal", "commit_window_ms": 5},
            "connections": [meters(server.port, 1)],
        }
        gateway = Holdfast(folder, site)
        with gateway:
            await server.silent(1)
            await server.requests()
            asking = asyncio.create_task(asked(folder / "journal"))
            seen: set[int] = set()

            async def written() -> None:
                while not seen & {6, 16}:
                    seen.update(request.function for request in await server.requests())
                    await asyncio.sleep(0.01)

            await asyncio.wait_for(written(), 20)
            await asyncio.to_thread(gateway.kill)
            await asking
            await server.silent(1, False)
            await server.set(1, "holding", 10, 7)
            for life in range(2):
                await asyncio.to_thread(gateway.start)
                told = await recorded(folder / "journal")
                assert len(told) == 1, f"life {life}: it is said once: {json.dumps(told)}"
                assert "failed" in json.dumps(told[0])
                assert "nobody can say what became of it" in json.dumps(told[0])
                assert await server.get(1, "holding", 10) == [7], "it is not carried out again"
                await asyncio.to_thread(gateway.kill if life == 0 else gateway.stop)
            assert not {request.function for request in await server.requests()} & {6, 16}
    await until("everything has ended", lambda: not gateway.alive)
