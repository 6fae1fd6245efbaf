"""Ask the network whether a configuration is true: does each device answer, and does it have the tags it should have?

A separate act, on a connection of its own. Each device gets one cheap question, then one for each tag up to a limit, so
that a technician sees at once which line of the configuration is wrong.
"""

from __future__ import annotations

import asyncio
from typing import Final

from protocols.contract import ProbeReport
from protocols.modbus.frames import EXCEPTIONS, is_exception
from protocols.modbus.line import Line, Missed
from protocols.modbus.plan import DevicePlan, Plan

MAX_TAGS: Final = 50
"""Tags of one device that are asked one by one."""


async def probe(plan: Plan, line: Line) -> ProbeReport:
    """What each device of ``plan`` says. Raises a DriverError if the connection breaks."""
    ok = True
    findings = [f"{line.where}: connected"]
    for device in plan.devices:
        good, said = await _device(device, line)
        ok = ok and good
        findings.extend(said)
    return ProbeReport(ok=ok, findings=tuple(findings))


async def _device(device: DevicePlan, line: Line) -> tuple[bool, list[str]]:
    name, unit_id = device.device.name, device.options.unit_id
    if not device.wires:
        return True, [f"{name}: unit id {unit_id} has no tags, so nothing was asked"]
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        pdu = await line.ask(device.cheapest)
    except Missed as miss:
        return False, [f"{name}: {miss}: check unit_id, wiring, and on serial lines baud_rate and parity"]
    said = [f"{name}: unit id {unit_id} answers in {(loop.time() - began) * 1000:.1f} ms"]
    if is_exception(pdu) and pdu[1] in (10, 11):
        return False, [
            f"{name}: unit id {unit_id}: {EXCEPTIONS[pdu[1]]}: the gateway is there, the device is not: check its power and unit_id"
        ]
    if len(device.wires) > MAX_TAGS:
        said.append(f"{name}: only the first {MAX_TAGS} of {len(device.wires)} tags are asked")
    troubles = await _tags(device, line)
    return not troubles, said + troubles


async def _tags(device: DevicePlan, line: Line) -> list[str]:
    troubles = []
    for wire in device.wires[:MAX_TAGS]:
        tag = device.options.tags[wire.slot]
        try:
            pdu = await line.ask(device.request(device.alone(wire.slot)))
        except Missed as miss:
            troubles.append(f"{device.device.name}: tag {tag.name} at {tag.at}: {miss}")
            break
        if is_exception(pdu):
            words = EXCEPTIONS.get(pdu[1], "unknown exception")
            troubles.append(f"{device.device.name}: tag {tag.name} at {tag.at}: exception {pdu[1]}, {words}: check at and address_base")
    return troubles
