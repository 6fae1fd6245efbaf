"""Diagnostics: the clock, metrics, the support bundle, and jobs that look at a line.

A line carries what belongs to everybody behind it, so jobs are for those who see the whole gateway.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import msgspec
from litestar import Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, Parameter

from gateway.api.operation import Asked, Given, Reach, delete, get, note, post
from gateway.api.paging import Cursor, Limit, page_of
from gateway.api.services import Services
from gateway.connections import Connection
from gateway.diagnostics import jobs, looks, networks
from gateway.diagnostics.bundle import MEDIA_TYPE, bundle
from gateway.identity.principal import Permission
from gateway.objections import Conflict, NotThere, Unfit
from gateway.telemetry import metrics
from holdfast.shapes.common import Page
from holdfast.shapes.diagnostics import ClockStatus, Finding, Job, NumberWish, ScanWish, TraceWish
from protocols.modbus.scan import LIKELY_UNITS, Pace

PROMETHEUS: Final = "text/plain; version=0.0.4"
PCAPNG: Final = "application/x-pcapng"
PORTS: Final = {"modbus-tcp": 502, "opcua": 4840}
TIMEOUT_S: Final = 0.5
PAUSE_S: Final = 0.02
JobId = Annotated[str, Parameter(max_length=64, description="Id of the job.")]


@get(
    "/diagnostics/clock",
    id="get_clock",
    permission=Permission.SEE_STATUS,
    reach=Reach.DEVICES,
    tag="diagnostics",
    summary="How the gateway's clock is",
)
async def get_clock(services: Given) -> ClockStatus:
    """As it was asked of the kernel last, some seconds ago at most."""
    now = services.clock_state.now
    return ClockStatus(
        state=now.word.value,
        trusted=services.clock_state.trusted,
        since_ns=now.since_ns,
        time_ns=services.clock.time_ns(),
        estimated_error_us=now.estimated_error_us,
        maximum_error_us=now.maximum_error_us,
        leap=now.leap,
        steps=now.steps,
        last_step_s=now.last_step_s,
        detail=now.detail,
    )


@get(
    "/metrics",
    id="get_metrics",
    permission=Permission.SEE_STATUS,
    reach=Reach.GATEWAY,
    tag="diagnostics",
    summary="Metrics for Prometheus",
    responses={200: ResponseSpec(str, media_type=PROMETHEUS, description="In the Prometheus text format.", generate_examples=False)},
)
async def get_metrics(services: Given) -> Response[str]:
    """The same as on the port of its own (telemetry.metrics_port), for whoever shows a token."""
    return Response(await asyncio.to_thread(metrics.text, services.metrics()), media_type=PROMETHEUS)


@post(
    "/diagnostics/bundle",
    id="make_support_bundle",
    permission=Permission.SUPPORT,
    reach=Reach.GATEWAY,
    tag="diagnostics",
    summary="A support bundle: settings, states, counters, the last log lines; no secret, no reading",
    status=200,
    idempotency=False,
    responses={200: ResponseSpec(bytes, media_type=MEDIA_TYPE, description="A tar, packed with gzip.", generate_examples=False)},
)
async def make_support_bundle(services: Given) -> Response[bytes]:
    packed = await bundle(services.support())
    name = f"holdfast-support-{services.clock.time_ns() // 10**9}.tar.gz"
    return Response(packed, media_type=MEDIA_TYPE, headers={"Content-Disposition": f'attachment; filename="{name}"'})


@post(
    "/diagnostics/traces",
    id="start_trace",
    permission=Permission.DIAGNOSE,
    reach=Reach.GATEWAY,
    tag="diagnostics",
    summary="Record what passes on a connection",
    problems=(404,),
)
async def start_trace(request: Asked, services: Given, data: JSONBody[TraceWish]) -> Job:
    """A job: when it is done, its file can be had."""
    _connection(services, data.connection)
    work = looks.trace(services.connection, data.connection, data.for_s, services.clock, until_trouble=data.until_trouble)
    return _started(request, services, "trace", data.connection, work, data)


@post(
    "/diagnostics/scans",
    id="start_scan",
    permission=Permission.DIAGNOSE,
    reach=Reach.GATEWAY,
    tag="diagnostics",
    summary="Ask which addresses answer",
    problems=(404, 409),
)
async def start_scan(request: Asked, services: Given, data: JSONBody[ScanWish]) -> Job:
    """The unit ids of a connection, between its own scans, or the addresses of a network. Reads only."""
    if (data.connection is None) == (data.network is None):
        raise Unfit("name a connection or a network, and not both", "see the description of the body")
    if data.connection is not None:
        pace = Pace(services.clock, for_s=data.for_s, requests=data.requests, pause_s=PAUSE_S)
        work = looks.scan_units(_connection(services, data.connection), data.unit_ids or list(range(1, 248)), pace)
        return _started(request, services, "scan", data.connection, work, data)
    assert data.network is not None
    hosts = networks.hosts(data.network, await asyncio.to_thread(services.own_networks))
    unit_ids, port = data.unit_ids or LIKELY_UNITS[:3], data.port or PORTS[data.protocol]
    work = looks.scan_network(hosts, data.protocol, port, unit_ids, services.clock, for_s=data.for_s, timeout_s=TIMEOUT_S)
    return _started(request, services, "scan", data.network, work, data)


@post(
    "/diagnostics/find-number",
    id="find_number",
    permission=Permission.DIAGNOSE,
    reach=Reach.GATEWAY,
    tag="diagnostics",
    summary="Find the registers that hold the number that a display shows",
    problems=(404, 409),
)
async def find_number(request: Asked, services: Given, data: JSONBody[NumberWish]) -> Job:
    if data.first > data.last:
        raise Unfit("first lies behind last", "swap them")
    pace = Pace(services.clock, for_s=data.for_s, requests=data.requests, pause_s=0.0)
    connection, reading = _connection(services, data.connection), looks.reading_of(data.shown)
    work = looks.find_number(connection, data.unit_id, reading, (data.first, data.last), pace)
    return _started(request, services, "find-number", data.connection, work, data)


@get(
    "/diagnostics/jobs",
    id="list_jobs",
    permission=Permission.DIAGNOSE,
    reach=Reach.GATEWAY,
    tag="diagnostics",
    summary="Traces, scans and searches",
)
async def list_jobs(services: Given, limit: Limit = 100, cursor: Cursor = None) -> Page[Job]:
    """The newest first, without what they found."""
    return await page_of(
        services.jobs.all(), _order, lambda job: msgspec.structs.replace(_shown(job), found=[]), limit=limit, cursor=cursor
    )


@get(
    "/diagnostics/jobs/{job:str}",
    id="get_job",
    permission=Permission.DIAGNOSE,
    reach=Reach.GATEWAY,
    tag="diagnostics",
    summary="How a job is, and what it has found",
    problems=(404,),
)
async def get_job(services: Given, job: JobId) -> Job:
    return _shown(services.jobs.one(job))


@get(
    "/diagnostics/jobs/{job:str}/pcapng",
    id="get_trace_file",
    permission=Permission.DIAGNOSE,
    reach=Reach.GATEWAY,
    tag="diagnostics",
    summary="The file of a trace, for Wireshark",
    problems=(404, 409),
    responses={200: ResponseSpec(bytes, media_type=PCAPNG, description="A pcapng file.", generate_examples=False)},
)
async def get_trace_file(services: Given, job: JobId) -> Response[bytes]:
    """Once the trace has ended."""
    found = services.jobs.one(job)
    if found.kind != "trace":
        raise NotThere(f"job {found.id} is a {found.kind}, which has no file", "GET /api/v1/diagnostics/jobs/{job} shows what it found")
    if found.state == "running":
        raise Conflict("the trace is running still", "wait until it has ended")
    headers = {"Content-Disposition": f'attachment; filename="trace-{found.id}.pcapng"'}
    return Response(bytes(found.content), media_type=PCAPNG, headers=headers)


@delete(
    "/diagnostics/jobs/{job:str}",
    id="remove_job",
    permission=Permission.DIAGNOSE,
    reach=Reach.GATEWAY,
    tag="diagnostics",
    summary="End a job, and forget it",
    problems=(404,),
)
async def remove_job(request: Asked, services: Given, job: JobId) -> None:
    found = await services.jobs.remove(job)
    note(request, on=f"{found.kind} {found.about}")


def _connection(services: Services, name: str) -> Connection:
    """Raises NotThere."""
    found = services.connection(name)
    if found is None:
        raise NotThere(f"no connection is called {name!r}", "GET /api/v1/connections lists them")
    return found


def _started(request: Asked, services: Services, kind: jobs.Kind, about: str, work: jobs.Work, wish: Any) -> Job:  # Any: one of the wishes
    started = services.jobs.start(kind, about, request.user.called, work)
    note(request, on=about, after=msgspec.to_builtins(wish))
    return _shown(started)


def _shown(job: jobs.Job) -> Job:
    return Job(
        id=job.id,
        kind=job.kind,
        about=job.about,
        by=job.by,
        state=job.state,
        began_ns=job.began_ns,
        ended_ns=job.ended_ns,
        progress=job.progress,
        detail=job.detail,
        frames=job.frames,
        bytes=len(job.content) if job.kind == "trace" else 0,
        found=msgspec.convert(job.found, list[Finding]),
    )


def _order(job: jobs.Job) -> tuple[int, str]:
    return -job.began_ns, job.id


AT_ROOT: Final = (get_metrics,)
OPERATIONS: Final = (
    get_clock,
    make_support_bundle,
    start_trace,
    start_scan,
    find_number,
    list_jobs,
    get_job,
    get_trace_file,
    remove_job,
)
