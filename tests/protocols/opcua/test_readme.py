"""The samples of the driver's README: the YAML checks without an error, the Python runs against a server that is not ours."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

import protocols.opcua
from protocols.opcua.check import check
from protocols.opcua.config import OpcUa
from tests.peers.opcua import OpcUaServer

README = (Path(protocols.opcua.__file__).parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_yaml_sample_is_right() -> None:
    (sample,) = blocks("yaml")
    (connection,) = yaml.safe_load(sample)["connections"]
    assert check(msgspec.convert(connection, OpcUa)) == []


async def test_the_python_sample_brings_values(server: OpcUaServer, capsys: pytest.CaptureFixture[str]) -> None:
    (sample,) = blocks("python")
    sample = sample.replace("opc.tcp://192.168.10.30:4840", server.endpoint).replace("asyncio.run(main())", "")
    names: dict[str, Any] = {}
    exec(compile(sample, "README.md", "exec"), names)
    await server.level("one", 1234)
    task = asyncio.ensure_future(names["main"]())
    said = ""
    async with asyncio.timeout(30):
        while "one [1234] [0]" not in said:
            await asyncio.sleep(0.01)
            said += capsys.readouterr().out
            assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
