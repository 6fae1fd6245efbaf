"""The how-to's broker: its settings start a mosquitto, and its access list keeps devices apart."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.peers.mosquitto import Mosquitto
from tests.protocols.mqtt.rig import options, reading

PAGE: Final = (Path(__file__).parents[3] / "docs/how-to/read-mqtt-devices.md").read_text()
OURS: Final = ("listener", "certfile", "keyfile", "password_file", "acl_file", "allow_anonymous", "persistence_location")
"""What the test's broker says itself: places on this machine."""


def _pub(broker: Mosquitto, user: str, topic: str, payload: str) -> None:
    words = ("-h", "127.0.0.1", "-p", str(broker.port), "-u", user, "-P", f"word-{user}", "-t", topic, "-m", payload, "-q", "1")
    subprocess.run(["mosquitto_pub", *words], check=True, timeout=20)


async def test_the_broker_of_the_page_keeps_devices_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, access = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    lines = [line for line in settings.splitlines() if line.split(" ")[0] not in OURS]
    users = {user: f"word-{user}" for user in ("gateway", "env-1", "env-2")}
    monkeypatch.setenv("GATEWAY_WORD", users["gateway"])
    config = "\n".join([*lines, f"persistence_location {tmp_path}/"])
    tag = {"name": "t", "kind": "float64", "at": "$.t"}
    family = {"names": ["env-1", "env-2"], "topic": "sensors/{device}/env", "format": "json", "silence_s": 60, "tags": [tag]}
    with Mosquitto(tmp_path, config=config, acl=access, users=users) as broker:
        told = options(broker.port, username="gateway", password={"from": "env", "name": "GATEWAY_WORD"}, families=[family])
        async with reading(told) as read:
            await asyncio.to_thread(_pub, broker, "env-1", "sensors/env-2/env", '{"t": 666}')
            await asyncio.to_thread(_pub, broker, "env-1", "sensors/env-1/env", '{"t": 1}')
            await asyncio.to_thread(_pub, broker, "env-2", "sensors/env-2/env", '{"t": 2}')
            await read.until("both", lambda: len(read.batches) == 2)
        assert [value for value, _ in read.history("t")] == [1.0, 2.0]
