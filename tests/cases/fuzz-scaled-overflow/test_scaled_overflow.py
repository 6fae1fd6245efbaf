"""See README.md."""

from __future__ import annotations

import math
from pathlib import Path

from protocols.modbus.config import Device, ModbusTcp, Tag
from protocols.modbus.plan import make_plan
from protocols.model import Kind


def test_what_is_scaled_too_far_is_an_infinity() -> None:
    """Warnings are errors in these tests."""
    tag = Tag(name="t", at="holding:0", kind=Kind.INT64, scale=1e300)
    plan = make_plan(ModbusTcp(name="line", host="h", devices=(Device(name="one", tags=(tag,)),)))
    answer = bytes.fromhex(Path(__file__).with_name("answer.hex").read_text())
    (batch,) = plan.devices[0].groups[0].recipe.decode(answer, (0, 0))
    assert batch.value.tolist() == [-math.inf]
