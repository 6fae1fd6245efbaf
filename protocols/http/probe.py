"""Ask the network whether a configuration is true: does each request answer, and does the answer hold its tags?

A separate act, on connections of its own: each request once, so that a technician sees at once which line is wrong.
"""

from __future__ import annotations

import asyncio
from typing import Final

from protocols.clock import SystemClock
from protocols.contract import ProbeReport
from protocols.http.client import Client, Missed
from protocols.http.decoding import Beside
from protocols.http.plan import DevicePlan, Plan, RequestPlan
from protocols.model import Quality
from protocols.payload import Decoder

MAX_TAGS: Final = 50
"""Troubles of one request's tags that are told."""


async def probe(plan: Plan, client: Client) -> ProbeReport:
    """What each request of ``plan`` says. Raises a DriverError if no connection can be made."""
    ok = True
    findings: list[str] = []
    for device in plan.devices:
        for request in device.requests:
            good, said = await _request(device, request, client)
            ok = ok and good
            findings.extend(f"{device.device.name}: {request.where}: {text}" for text in said)
    return ProbeReport(ok=ok, findings=tuple(findings) or (f"{plan.where}: there are no requests, so nothing was asked",))


async def _request(device: DevicePlan, request: RequestPlan, client: Client) -> tuple[bool, list[str]]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        answer = await client.ask(
            request.options.method, request.url, headers=request.headers, body=request.body, most=request.options.max_bytes
        )
    except Missed as miss:
        return False, [f"{client.where}: {miss}: check its power, path and network"]
    took = f"answers {answer.status} {answer.reason} in {(loop.time() - began) * 1000:.0f} ms"
    if not 200 <= answer.status < 300:
        return False, [f"{took}: check path, auth and headers"]
    said = [f"{took}, {len(answer.body)} bytes of {answer.header('content-type')[:60] or 'no type'}"]
    decoder = Decoder(device.device, device.tags, request.options, slots=request.slots)
    batches = await Beside(decoder).decode(answer.body, SystemClock().time_ns(), answer.header("content-type"))
    if decoder.trouble:
        return False, [*said, decoder.trouble]
    troubles = [
        f"tag {device.tags[slot].name} at {device.tags[slot].at}: {Quality(quality).name}"
        for batch in batches
        for slot, quality in zip(batch.tag.tolist(), batch.quality.tolist(), strict=True)
        if Quality(quality).is_bad
    ]
    return not troubles, said + troubles[:MAX_TAGS]
