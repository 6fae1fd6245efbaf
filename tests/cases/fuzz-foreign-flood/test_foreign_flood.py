"""See README.md."""

from __future__ import annotations

from pathlib import Path

from protocols.contract import Unreachable
from protocols.modbus.config import ModbusTcp
from protocols.modbus.line import NetworkLine
from protocols.model import ScanStats


async def test_a_flood_of_short_foreign_frames_is_cut_off_after_few() -> None:
    frame = bytes.fromhex(Path(__file__).with_name("frame.hex").read_text())
    line = NetworkLine(ModbusTcp(name="line", host="nowhere"), ScanStats())
    line.data_received(frame * 7000)
    assert isinstance(line.trouble, Unreachable)
    assert line.stats.errors["foreign"] <= 65
