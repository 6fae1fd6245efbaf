"""The sample of the README is a template that works, and its example proves it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import yaml

import protocols.templates
from protocols.modbus.check import check
from protocols.templates.device import make
from protocols.templates.library import resolved
from protocols.templates.shape import Family
from tests.peers.libmodbus import LibmodbusServer
from tests.protocols.templates.proof import connection, covered, device, quick, read, serve

README = (Path(protocols.templates.__file__).parent / "README.md").read_text()
(SAMPLE,) = re.findall(r"```yaml\n(template:.*?)```", README, re.DOTALL)
FAMILY = msgspec.convert(yaml.safe_load(SAMPLE), Family)
ONE = resolved("acme/a1", FAMILY, "a1")


async def test_the_sample_reads_what_it_recorded() -> None:
    made = device(ONE, "m", 1)
    assert check(connection([made], 502)) == []
    assert covered(ONE, made) == []
    async with LibmodbusServer(units=[1]) as server:
        assert ONE.recorded is not None
        await serve(server, 1, ONE.recorded)
        readings = (await read(connection([quick(made)], server.port)))["m"]
    assert {name: round(value, 2) for name, (value, _) in readings.items()} == {
        "voltage/l1": 230.4, "current/l1": 12.36, "energy/active/import": 12345.0,
    }  # fmt: skip


def test_the_sample_shows_what_questions_do() -> None:
    made, problems = make(ONE, {"name": "m", "answers": {"wiring": "three", "ct_ratio": 20}})
    assert not problems
    tags = {tag["name"]: tag for tag in made["tags"]}
    assert set(tags) == {"voltage/l1", "voltage/l2", "current/l1", "energy/active/import"}
    assert tags["current/l1"]["scale"] == 20.0
    mini = resolved("acme/a1-mini", FAMILY, "a1-mini")
    assert "energy/active/import" not in {tag.name for tag in mini.tags}
