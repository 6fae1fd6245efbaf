"""The samples of the driver's README load, check without an error, and the first one runs against libcoap."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml

import protocols.coap
from protocols.coap.config import Coap
from protocols.coap.driver import CLIENT
from protocols.coap.server import SERVER
from protocols.coap.server_config import CoapServer
from protocols.coap.session import QUALITY
from protocols.model import Quality
from tests.contract.driver_suite import PATIENCE_S
from tests.peers.coap import LibcoapServer
from tests.peers.leash import leashed

README = (Path(protocols.coap.__file__).parent / "README.md").read_text()
HOW_TO = (Path(__file__).parents[3] / "docs/how-to/read-coap-sensors.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_every_yaml_sample_is_right() -> None:
    found: list[Any] = [yaml.safe_load(block) for text in (README, HOW_TO) for block in blocks("yaml", text)]
    connections = [one for block in found for one in block.get("connections", ())]
    assert len(connections) >= 5
    for one in connections:
        if one["type"] == "coap":
            problems = list(CLIENT.check(msgspec.convert(one, Coap)))
        else:
            problems = list(SERVER.check(msgspec.convert(one, CoapServer)))
        assert [problem for problem in problems if problem.severity == "error"] == []


async def test_the_python_sample_runs_against_libcoap() -> None:
    (sample,) = blocks("python")
    async with LibcoapServer() as server:
        code = sample.replace("5683", str(server.port))
        process = await asyncio.create_subprocess_exec(
            *leashed(sys.executable, "-u", "-c", code), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[3]
        )
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = (await process.stdout.readline()).decode()
        process.kill()
        await process.wait()
    assert re.match(r"tank-1 \['\w{3} \d\d \d\d:\d\d:\d\d'\] \[0\]", line), line


def test_the_quality_ledger_is_the_code_s() -> None:
    """Each response code of the table stands in the README's row of its quality."""
    names = {quality: "".join(word.capitalize() for word in quality.name.split("_")) for quality in Quality}
    for code, quality in QUALITY.items():
        said = f"{code >> 5}.{code & 31:02}"
        rows = [line for line in README.splitlines() if line.startswith("|") and re.search(rf"\b{said}\b", line) and names[quality] in line]
        assert rows, f"{said} is {names[quality]}"
