"""Commands and the lock-out from a shell on the gateway, while it runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway import config, links
from gateway.app import Appliance, running
from gateway.cli.root import main
from tests.gateway.api.conftest import meters, until
from tests.peers.libmodbus import LibmodbusServer


@pytest.fixture
async def server() -> AsyncIterator[LibmodbusServer]:
    async with LibmodbusServer(units=[1]) as one:
        yield one


@pytest.fixture
async def appliance(server: LibmodbusServer, tmp_path: Path) -> AsyncIterator[Appliance]:
    """A gateway on ``tmp_path/site.yaml``."""
    site: dict[str, Any] = {  # Any: JSON
        "holdfast": 1,
        "gateway": {"group": "plant", "name": "edge"},
        "journal": {"path": "journal"},
        "connections": [meters(server.port, 1)],
    }
    (tmp_path / "site.yaml").write_text(json.dumps(site))
    loaded, problems = config.load(json.dumps(site).encode())
    assert loaded is not None, problems
    async with running(loaded, base=tmp_path) as one:
        await until("all is up", lambda: all(each.state is links.State.UP for each in one.statuses))
        yield one


async def say(folder: Path, *words: str) -> Result:
    """``holdfast WORDS``, with the document after the command's own words."""
    commands = [word for word in words if word in ("command", "lock-out", "set", "lift", "list")]
    rest = words[len(commands) :]
    return await asyncio.to_thread(CliRunner().invoke, main, [*commands, str(folder / "site.yaml"), *rest])


async def test_a_command_says_what_became_of_it(appliance: Appliance, server: LibmodbusServer, tmp_path: Path) -> None:
    done = await say(tmp_path, "command", "meter-1", "setpoint", "21")
    assert (done.exit_code, done.stdout) == (0, "verified, read back 21\n")
    await server.clamp(1, 10, 10, 50)
    clipped = await say(tmp_path, "command", "meter-1", "setpoint", "80")
    assert (clipped.exit_code, clipped.stdout.startswith("mismatch, read back 50")) == (1, True)
    refused = await say(tmp_path, "command", "meter-1", "setpoint", "much")
    assert (refused.exit_code, "write a number" in refused.stdout) == (1, True)


async def test_a_lock_out_is_set_listed_and_lifted(appliance: Appliance, server: LibmodbusServer, tmp_path: Path) -> None:
    missing = await say(tmp_path, "lock-out", "set", "device", "no-such", "--why", "belt")
    assert (missing.exit_code, "no device is called" in missing.stderr) == (1, True)
    assert (await say(tmp_path, "lock-out", "set", "device", "meter-1", "--why", "belt is off")).exit_code == 0
    refused = await say(tmp_path, "command", "meter-1", "setpoint", "21")
    assert (refused.exit_code, "belt is off" in refused.stdout) == (1, True)
    listed = await say(tmp_path, "lock-out", "list")
    assert json.loads(listed.stdout)["id"] == "device:meter-1"
    assert (await say(tmp_path, "lock-out", "lift", "device:meter-1")).exit_code == 0
    assert (await say(tmp_path, "command", "meter-1", "setpoint", "21")).exit_code == 0
