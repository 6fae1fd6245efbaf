"""Commands, live and remembered, and the lock-out. What may be is decided by the gate; here is asked who may know of it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import uuid
from typing import Annotated, Final, Literal

from litestar import Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter, JSONBody, Parameter

from gateway.api.operation import Asked, Given, Reach, Seen, delete, get, note, post
from gateway.api.paging import Cursor, Limit, page_of
from gateway.api.services import Services
from gateway.commands import Course, Origin, Stage
from gateway.commands.lockout import LockOut
from gateway.commands.rules import LONGEST_ID, tag_of
from gateway.identity.principal import Permission
from gateway.identity.sight import Sight
from gateway.objections import NotAllowed, NotThere, Unfit
from gateway.readable import value as readable
from holdfast.shapes import commands as shapes
from holdfast.shapes.common import Page
from protocols.model import Command, Kind

MOST_WAIT_S: Final = 60.0
LONGEST_KEY: Final = 255

Wait = Annotated[
    float,
    Parameter(ge=0, le=MOST_WAIT_S, description="Wait so long for its end."),
]
Identity = Annotated[str, Parameter(min_length=1, max_length=256)]
OfDevice = Annotated[str | None, Parameter(max_length=128, description="Only commands to this device.")]
OfStage = Annotated[shapes.Stage | None, Parameter(description="Only commands at this stage.")]
OfSource = Annotated[
    Literal["api", "uplink", "face", "shadow", "rule", "local"] | None, Parameter(description="Only commands that came this way.")
]
Key = Annotated[str | None, HeaderParameter(name="Idempotency-Key", max_length=LONGEST_KEY, description="As id, for whoever asks alone.")]


@get(
    "/commands",
    id="list_commands",
    permission=Permission.SEE_COMMANDS,
    reach=Reach.DEVICES,
    tag="commands",
    summary="Commands that are remembered, the newest first",
)
async def list_commands(
    services: Given,
    sight: Seen,
    device: OfDevice = None,
    stage: OfStage = None,
    source: OfSource = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[shapes.Command]:
    """They are gone when 5,000 newer ones came; their outcomes stay in the journal, under the device `_commands`."""
    found = [
        course
        for course in services.commands.courses()
        if sight.sees(course.command.device)
        and device in (None, course.command.device)
        and stage in (None, course.stage.value)
        and source in (None, course.origin.kind)
    ]
    return await page_of(found, lambda course: -course.number, lambda course: _shown(course, sight), limit=limit, cursor=cursor)


@get(
    "/commands/{id:str}",
    id="get_command",
    permission=Permission.SEE_COMMANDS,
    reach=Reach.DEVICES,
    tag="commands",
    summary="One command and how far it has got",
)
async def get_command(services: Given, sight: Seen, id: Identity, wait_s: Wait = 0.0) -> shapes.Command:
    course = _course(services, sight, id)
    await _end(course, wait_s)
    return _shown(course, sight)


@post(
    "/commands",
    id="create_command",
    permission=Permission.COMMAND,
    reach=Reach.DEVICES,
    tag="commands",
    summary="Write a tag",
    status=202,
    problems=(404, 409),
    responses={200: ResponseSpec(shapes.Command, description="It is over: stage says how it ended.", generate_examples=False)},
    idempotency=False,
)
async def create_command(
    request: Asked, services: Given, sight: Seen, data: JSONBody[shapes.NewCommand], wait_s: Wait = 0.0, key: Key = None
) -> Response[shapes.Command]:
    """202 while it is under way: its end is told by `GET /commands/{id}`. 200 where it is over, however it ended: `stage` says how.
    What the rules of the site refuse is a command that ended as `refused`, and recorded like every other."""
    sight.must_see(data.device)
    command = _command(services, data, _id(request, data, key))
    user = request.user
    origin = Origin(kind="api", who=user.called, role=user.role)
    course = await services.commands.submit(command, origin, reason=data.reason, waits=data.when_down == "wait")
    await _end(course, wait_s)
    after = {"value": readable(command.value), "id": command.id}
    note(request, on=f"{data.device}/{data.tag}", after=after, detail=_said(course), outcome=_verdict(course))
    return Response(_shown(course, sight), status_code=200 if course.is_over() else 202)


@delete(
    "/commands/{id:str}",
    id="cancel_command",
    permission=Permission.COMMAND,
    reach=Reach.DEVICES,
    tag="commands",
    summary="Take back a command that was not sent yet",
    status=200,
    problems=(409,),
)
async def cancel_command(request: Asked, services: Given, sight: Seen, id: Identity) -> shapes.Command:
    course = _course(services, sight, id)
    note(request, on=f"{course.command.device}/{course.command.tag}", before={"stage": course.stage.value, "id": id})
    return _shown(services.commands.cancel(id, request.user.called), sight)


@get(
    "/lock-outs",
    id="list_lock_outs",
    permission=Permission.SEE_STATUS,
    reach=Reach.DEVICES,
    tag="commands",
    summary="What nobody writes to now, and why",
)
async def list_lock_outs(services: Given, sight: Seen, limit: Limit = 100, cursor: Cursor = None) -> Page[shapes.LockOut]:
    found = sorted((one for one in services.commands.lock_outs() if _may_know(sight, one)), key=lambda one: one.id)
    return await page_of(found, lambda one: one.id, _locked, limit=limit, cursor=cursor)


@post(
    "/lock-outs",
    id="set_lock_out",
    permission=Permission.LOCK_OUT,
    reach=Reach.DEVICES,
    tag="commands",
    summary="Let nobody write to a device, a connection or anything, for maintenance",
    problems=(404,),
)
async def set_lock_out(request: Asked, services: Given, sight: Seen, data: JSONBody[shapes.NewLockOut]) -> shapes.LockOut:
    """It holds at once, for what is queued as well, and after a restart. No uplink can lift it."""
    _must_be(services, sight, data)
    now_ns = services.clock.time_ns()
    if data.until_ns and data.until_ns <= now_ns:
        raise Unfit("until_ns lies in the past", "give a later moment, or 0 for a lock-out that somebody has to lift")
    who = request.user.called
    one = LockOut(scope=data.scope, name=data.name, who=who, why=data.why, since_ns=now_ns, until_ns=data.until_ns)
    note(request, on=one.id, after={"why": data.why, "until_ns": data.until_ns})
    await services.commands.lock_out(one)
    return _locked(one)


@delete(
    "/lock-outs/{id:str}",
    id="lift_lock_out",
    permission=Permission.LOCK_OUT,
    reach=Reach.DEVICES,
    tag="commands",
    summary="Let commands through again",
    problems=(403,),
)
async def lift_lock_out(request: Asked, services: Given, sight: Seen, id: Annotated[str, Parameter(max_length=160)]) -> None:
    found = next((one for one in services.commands.lock_outs() if one.id == id and _may_know(sight, one)), None)
    if found is None:
        raise NotThere(f"no lock-out is called {id!r}", "GET /api/v1/lock-outs lists them")
    if not sight.whole and found.scope != "device":
        raise NotAllowed("it holds for more than your devices", "ask whoever runs the whole gateway")
    note(request, on=id, before={"who": found.who, "why": found.why})
    await services.commands.lift(id, request.user.called)


# ---- from shapes to what the gate takes, and back


def _course(services: Services, sight: Sight, id: str) -> Course:
    """Raises NotThere, also for a command to a device that whoever asks may not know of."""
    course = services.commands.course(id)
    if not sight.sees(course.command.device):
        raise NotThere(f"no command has the id {id[:80]!r}", "GET /api/v1/commands lists those that are remembered")
    return course


def _id(request: Asked, data: shapes.NewCommand, key: str | None) -> str:
    """A key is whoever asks' own, and an id its tenant's: nobody learns from a conflict which ids others have."""
    if data.id is not None:
        mine = f"{request.user.tenant}:{data.id}" if request.user.tenant else data.id
        if len(mine) > LONGEST_ID:
            raise Unfit(f"id: with the tenant's name before it it has more than {LONGEST_ID} characters", "make it shorter")
        return mine
    if key:
        mine = "\n".join((request.user.called, request.user.tenant, key))
        return f"key-{hashlib.sha256(mine.encode()).hexdigest()[:32]}"
    return str(uuid.uuid4())


def _command(services: Services, data: shapes.NewCommand, id: str) -> Command:
    options, now_ns = services.site().commands, services.clock.time_ns()
    if data.deadline_ns is not None and data.deadline_s is not None:
        raise Unfit("deadline_ns and deadline_s are two ways to say one thing", "give one of them")
    deadline_ns = data.deadline_ns
    if deadline_ns is None:
        deadline_ns = now_ns + int((options.deadline_s if data.deadline_s is None else data.deadline_s) * 1e9)
    if deadline_ns > now_ns + options.longest_deadline_s * 1e9:
        raise Unfit(f"the deadline lies more than {options.longest_deadline_s:g} s ahead", "give a nearer one, or raise longest_deadline_s")
    value = _value(services, data)
    return Command(id=id, device=data.device, tag=data.tag, value=value, deadline_ns=deadline_ns)


def _value(services: Services, data: shapes.NewCommand) -> bool | int | float | str | bytes:
    device = services.latest.device(data.device)
    tag = tag_of(device, data.tag) if device is not None else None
    if tag is None or not isinstance(data.value, str) or tag.kind is Kind.STRING:
        return data.value
    if tag.kind is Kind.BYTES:
        try:
            return base64.b64decode(data.value, validate=True)
        except binascii.Error as error:
            raise Unfit(f"value: {error}", "send bytes as base64") from None
    named = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
    return named.get(data.value, data.value)


async def _end(course: Course, wait_s: float) -> None:
    if wait_s and not course.is_over():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await course.ended.wait()


def _verdict(course: Course) -> Literal["done", "refused", "failed"]:
    """For the audit log: what is under way was done as far as whoever asked is concerned."""
    if course.stage is Stage.REFUSED:
        return "refused"
    return "failed" if course.is_over() and course.stage is not Stage.VERIFIED else "done"


def _said(course: Course) -> str:
    return f"{course.stage}: {course.detail}" if course.detail else course.stage.value


def _shown(course: Course, sight: Sight) -> shapes.Command:
    """``course`` as ``sight`` may know it: why a connection failed may name what is not a tenant's."""
    command = course.command
    failed = course.stage is Stage.FAILED and not course.by_device
    return shapes.Command(
        id=command.id,
        device=command.device,
        tag=command.tag,
        value=readable(command.value),
        stage=course.stage.value,
        times_ns=dict(course.times),
        detail=course.detail.partition(": ")[0] if failed and not sight.whole else course.detail,
        read_back=readable(course.read_back),
        by_device=course.by_device,
        attempts=course.attempts,
        deadline_ns=command.deadline_ns,
        source=str(course.origin),
        reason=course.reason,
    )


def _locked(one: LockOut) -> shapes.LockOut:
    return shapes.LockOut(id=one.id, scope=one.scope, name=one.name, who=one.who, why=one.why, since_ns=one.since_ns, until_ns=one.until_ns)


def _may_know(sight: Sight, one: LockOut) -> bool:
    return sight.whole or one.scope == "gateway" or (one.scope == "device" and sight.sees(one.name))


def _must_be(services: Services, sight: Sight, data: shapes.NewLockOut) -> None:
    """What is to be locked out is there, and whoever asks may lock it out. Raises Unfit, NotThere, NotAllowed."""
    if data.scope == "device":
        sight.must_see(data.name)
        if services.latest.device(data.name) is None:
            raise NotThere(f"no device is called {data.name!r}", "GET /api/v1/devices lists them")
        return
    if not sight.whole:
        raise NotAllowed("it would hold for more than your devices", "lock out your devices, or ask whoever runs the whole gateway")
    if data.scope == "gateway" and data.name:
        raise Unfit("the gateway is locked out as a whole", "leave name empty, or give scope connection or device")
    if data.scope == "connection" and services.connection(data.name) is None:
        raise NotThere(f"no connection is called {data.name!r}", "GET /api/v1/connections lists them")


OPERATIONS: Final = (
    list_commands,
    get_command,
    create_command,
    cancel_command,
    list_lock_outs,
    set_lock_out,
    lift_lock_out,
)
