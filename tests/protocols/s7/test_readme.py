"""The sample of the driver's README loads and checks without an error, and its table of addresses is right."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import yaml

import protocols.s7
from protocols.s7.address import parse
from protocols.s7.config import S7
from protocols.s7.driver import S7 as DRIVER

README = (Path(protocols.s7.__file__).parent / "README.md").read_text()


def test_the_sample_is_right() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (connection,) = yaml.safe_load(block)["connections"]
    options = msgspec.convert(connection, S7)
    assert DRIVER.check(options) == []
    assert [len(device.tags) for device in DRIVER.devices(options)] == [6]


def test_every_address_in_the_table_is_one() -> None:
    table = README.split("## Tags")[1].split("\n\n")[1]
    named = [text for row in table.splitlines()[2:] for text in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(named) == 17
    assert [parse(text) for text in named]
