"""Commands and the lock-out for whoever has a shell on the gateway: answers to what comes over the control socket.

Whoever may open that socket is an administrator of this machine. Each change is an entry in the audit log.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, Literal

import msgspec

from gateway.audit import Audit
from gateway.commands.gate import Gate
from gateway.commands.lockout import LockOut
from gateway.commands.origin import Origin
from gateway.commands.questions import AskCommand, LiftLockOut, ListLockOuts, OfCommands, SetLockOut
from gateway.connections import Connection
from gateway.identity.principal import Role
from gateway.latest import Latest
from gateway.objections import NotThere, Objection, Unfit
from gateway.readable import value as readable
from protocols.clock import Clock
from protocols.model import Command

_SHELL: Final = "local:shell"
Lines = AsyncGenerator[dict[str, Any], None]  # Any: JSON


async def answer(
    gate: Gate, latest: Latest, connection: Callable[[str], Connection | None], audit: Audit, clock: Clock, request: OfCommands
) -> Lines:
    """The lines that answer ``request``. Raises Objection."""
    if isinstance(request, ListLockOuts):
        for one in gate.lock_outs():
            yield _shown(one)
        return
    on = request.id if isinstance(request, LiftLockOut) else getattr(request, "device", "") or getattr(request, "name", "")
    action = str(request.__struct_config__.tag).replace("-", "_")
    try:
        if isinstance(request, AskCommand):
            told = await _carried_out(gate, clock, request)
        elif isinstance(request, SetLockOut):
            told = _shown(await _locked(gate, latest, connection, clock, request))
        else:
            told = _shown(await gate.lift(request.id, _who(request.who)))
    except Objection as objection:
        audit.record(who=_who(request.who), action=action, outcome="refused", source="console", on=on, detail=objection.detail)
        raise
    verdict: Literal["done", "failed"] = "done" if told.get("stage", "verified") == "verified" else "failed"
    audit.record(who=_who(request.who), action=action, outcome=verdict, source="console", on=on, after=told)
    yield told


def _who(name: str) -> str:
    return f"local:{name}" if name else _SHELL


async def _carried_out(gate: Gate, clock: Clock, asked: AskCommand) -> dict[str, Any]:  # Any: JSON
    deadline_ns = clock.time_ns() + int(asked.wait_s * 1e9)
    command = Command(id=str(uuid.uuid4()), device=asked.device, tag=asked.tag, value=asked.value, deadline_ns=deadline_ns)
    origin = Origin(kind="local", who=_who(asked.who), role=Role.ADMINISTRATOR)
    course = await gate.submit(command, origin, reason=asked.reason)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(asked.wait_s + 5):
            await course.ended.wait()
    return {
        "id": command.id,
        "stage": course.stage.value,
        "detail": course.detail,
        "read_back": readable(course.read_back),
        "times_ns": dict(course.times),
    }


async def _locked(gate: Gate, latest: Latest, connection: Callable[[str], Connection | None], clock: Clock, asked: SetLockOut) -> LockOut:
    if asked.scope == "device" and latest.device(asked.name) is None:
        raise NotThere(f"no device is called {asked.name!r}", "take a name from the site document")
    if asked.scope == "connection" and connection(asked.name) is None:
        raise NotThere(f"no connection is called {asked.name!r}", "take a name from the site document")
    if asked.scope == "gateway" and asked.name:
        raise Unfit("the gateway is locked out as a whole", "leave the name out")
    now_ns = clock.time_ns()
    until_ns = now_ns + int(asked.hours * 3600e9) if asked.hours else 0
    one = LockOut(scope=asked.scope, name=asked.name, who=_who(asked.who), why=asked.why, since_ns=now_ns, until_ns=until_ns)
    await gate.lock_out(one)
    return one


def _shown(one: LockOut) -> dict[str, Any]:  # Any: JSON
    return {"id": one.id, **msgspec.to_builtins(one)}
