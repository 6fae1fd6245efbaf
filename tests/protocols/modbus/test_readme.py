"""The samples of the driver's README load, and check without an error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

import protocols.modbus
from protocols.modbus.check import check
from protocols.modbus.config import AnyConnection
from tests.protocols.modbus.plc import options

README = (Path(protocols.modbus.__file__).parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_every_yaml_sample_is_right() -> None:
    found: list[Any] = [yaml.safe_load(block) for block in blocks("yaml")]
    connections = [one for block in found for one in block.get("connections", ())]
    devices = [block["devices"] for block in found if "devices" in block]
    assert (len(connections), len(devices)) == (4, 1)
    for one in connections:
        assert check(msgspec.convert(one, AnyConnection)) == []
    for each in devices:
        assert check(options(devices=each)) == []


def test_the_python_sample_compiles() -> None:
    (sample,) = blocks("python")
    compile(sample, "README.md", "exec")


def test_every_option_of_a_particular_device_exists() -> None:
    """The table of particular devices names real settings."""
    section = README.split("## Devices that are particular")[1].split("##")[0]
    named = set(re.findall(r"`([a-z_]+)(?:: [a-z0-9]+)?`", section)) - {"auto", "multiple"}
    schema = str(msgspec.json.schema(AnyConnection))
    assert {name for name in named if f"'{name}'" not in schema} == set()
