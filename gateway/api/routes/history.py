"""Values of the past, by device and tag: as they were stored, in buckets, as lines for eyes, and to take away.

Names of tags may hold slashes, so they are query parameters: ``?tag=a&tag=b``. ``from`` and ``to`` are nanoseconds since 1970 or
RFC 3339; without ``to`` it is now, without ``from`` an hour before that. Whoever goes away before the answer is there ends
the work.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Final, Literal, TypeVar

from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, Parameter, QueryParameter
from litestar.response import Stream

from gateway.api.operation import Asked, Given, Reach, Seen, get, post
from gateway.api.paging import Cursor, after, cursor_of
from gateway.api.routes.devices import DeviceName
from gateway.api.services import Services
from gateway.history.buckets import Buckets
from gateway.history.export import ENDINGS, MEDIA_TYPES, exported, format_of, values
from gateway.history.history import Found, Gap, History, Line, Page
from gateway.history.moment import moment
from gateway.history.sums import Floats
from gateway.identity.principal import Permission
from gateway.identity.sight import Sight
from gateway.objections import Unavailable
from holdfast.shapes import history as shapes
from holdfast.shapes.history import BucketsAsked, LinesAsked, SeriesName

T = TypeVar("T")

SECOND_NS: Final = 1_000_000_000
USUAL_NS: Final = 3600 * SECOND_NS
LONGEST_BUCKET_S: Final = 366 * 86_400

Begin = Annotated[str | None, QueryParameter(name="from", max_length=40, description="Begin: nanoseconds since 1970, or RFC 3339.")]
End = Annotated[str | None, QueryParameter(name="to", max_length=40, description="End (not in it); now where it is absent.")]
OneTag = Annotated[str, QueryParameter(name="tag", min_length=1, max_length=256, description="Name of the tag.")]
Tags = Annotated[list[str], QueryParameter(name="tag", min_items=1, max_items=1000, description="Names of tags: tag=a&tag=b.")]
MostSamples = Annotated[int, Parameter(ge=1, le=10_000, description="Most values in one page.")]
BucketLength = Annotated[int, Parameter(ge=1, le=LONGEST_BUCKET_S, description="Length of a bucket, in seconds.")]
Points = Annotated[int, Parameter(ge=2, le=100_000, description="Most points of a tag.")]
FormatName = Literal["csv", "ndjson", "arrow", "parquet"]
FormatAsked = Annotated[FormatName | None, QueryParameter(name="format", description="Without it, what Accept says; else csv.")]


@get(
    "/devices/{device:str}/history",
    id="read_history",
    permission=Permission.SEE_VALUES,
    reach=Reach.DEVICES,
    tag="history",
    summary="Stored values of one tag",
)
async def read_history(
    request: Asked,
    services: Given,
    sight: Seen,
    device: DeviceName,
    tag: OneTag,
    begin: Begin = None,
    end: End = None,
    limit: MostSamples = 1000,
    cursor: Cursor = None,
) -> shapes.Samples:
    """As they were stored, in order of time and then of seq, page by page."""
    history = _history(services)
    from_ns, to_ns = _span(services, history, begin, end, 1)
    key = after(cursor, tuple[int, int, int]) if cursor is not None else None
    sight.must_see(device)

    async def answer() -> shapes.Samples:
        async with history.turn():
            found = history.find(device, tag)
            page = await history.page(found, from_ns, to_ns, limit, key)
            return await history.follower.ask(_samples, history, found, from_ns, to_ns, page)

    return await _while_there(request, answer)


@get(
    "/devices/{device:str}/history/buckets",
    id="read_history_buckets",
    permission=Permission.SEE_VALUES,
    reach=Reach.DEVICES,
    tag="history",
    summary="Least, greatest, mean, first and last of each stretch of time",
    problems=(413,),
)
async def read_history_buckets(
    request: Asked,
    services: Given,
    sight: Seen,
    device: DeviceName,
    tag: Tags,
    begin: Begin = None,
    end: End = None,
    bucket_s: BucketLength = 60,
) -> shapes.Buckets:
    """Buckets of tags of one device. Those of whole minutes are quick over any time; shorter ones read every stored value."""
    series = [SeriesName(device=device, tag=each) for each in tag]
    return await _buckets(request, services, sight, BucketsAsked(series=series, begin=begin, end=end, bucket_s=bucket_s))


@post(
    "/history/buckets",
    id="query_history_buckets",
    permission=Permission.SEE_VALUES,
    reach=Reach.DEVICES,
    tag="history",
    summary="The same for tags of several devices",
    status=200,
    audited=False,
    idempotency=False,
    problems=(404,),
)
async def query_history_buckets(request: Asked, services: Given, sight: Seen, data: JSONBody[BucketsAsked]) -> shapes.Buckets:
    """Changes nothing: it is a POST because it may ask for many tags."""
    return await _buckets(request, services, sight, data)


@get(
    "/devices/{device:str}/history/line",
    id="read_history_line",
    permission=Permission.SEE_VALUES,
    reach=Reach.DEVICES,
    tag="history",
    summary="A line for eyes, of at most so many points",
    problems=(413,),
)
async def read_history_line(
    request: Asked, services: Given, sight: Seen, device: DeviceName, tag: Tags, begin: Begin = None, end: End = None, points: Points = 500
) -> shapes.Lines:
    """Points chosen by LTTB (Steinarsson 2013) so that the line looks as all of them would; gaps stay gaps."""
    series = [SeriesName(device=device, tag=each) for each in tag]
    return await _lines(request, services, sight, LinesAsked(series=series, begin=begin, end=end, points=points))


@post(
    "/history/line",
    id="query_history_line",
    permission=Permission.SEE_VALUES,
    reach=Reach.DEVICES,
    tag="history",
    summary="The same for tags of several devices",
    status=200,
    audited=False,
    idempotency=False,
    problems=(404,),
)
async def query_history_line(request: Asked, services: Given, sight: Seen, data: JSONBody[LinesAsked]) -> shapes.Lines:
    """Changes nothing: it is a POST because it may ask for many tags."""
    return await _lines(request, services, sight, data)


@get(
    "/devices/{device:str}/history/export",
    id="export_history",
    permission=Permission.SEE_VALUES,
    reach=Reach.DEVICES,
    tag="history",
    summary="Stored values to take away: CSV, NDJSON, Arrow or Parquet",
    problems=(413,),
    also_given=[kind.partition(";")[0] for kind in MEDIA_TYPES.values() if not kind.startswith("text/csv")],
    responses={
        200: ResponseSpec(
            str, media_type="text/csv", description="A stream, tag after tag, each in order of time.", generate_examples=False
        )
    },
)
async def export_history(
    request: Asked,
    services: Given,
    sight: Seen,
    device: DeviceName,
    tag: Tags,
    begin: Begin = None,
    end: End = None,
    form: FormatAsked = None,
) -> Stream:
    """Arrow and Parquet need the extra ``arrow`` on the gateway. A stream that ends early was broken off: ask again."""
    history = _history(services)
    from_ns, to_ns = _span(services, history, begin, end, len(tag))
    sight.must_see(device)
    async with history.turn():
        series = [history.find(device, each) for each in dict.fromkeys(tag)]
    name = form or _accepted(request.headers.get("accept", ""))
    made = await asyncio.to_thread(format_of, name, series)

    async def parts() -> AsyncIterator[bytes]:
        async with history.turn(long=True):
            async for part in exported(history, series, from_ns, to_ns, made):
                if part:
                    yield part

    headers = {"Content-Disposition": f'attachment; filename="history.{ENDINGS[name]}"'}
    return Stream(parts(), media_type=MEDIA_TYPES[name], headers=headers)


async def _buckets(request: Asked, services: Services, sight: Sight, asked: BucketsAsked) -> shapes.Buckets:
    history = _history(services)
    from_ns, to_ns = _span(services, history, asked.begin, asked.end, len(asked.series))
    history.check(len(asked.series), from_ns, to_ns, bucket_ns=asked.bucket_s * SECOND_NS)
    _must_see(sight, asked.series)

    async def answer() -> shapes.Buckets:
        async with history.turn():
            made = []
            for each in asked.series:
                found = history.find(each.device, each.tag)
                buckets = await history.buckets(found, from_ns, to_ns, asked.bucket_s * SECOND_NS)
                made.append(await history.follower.ask(_bucket_series, found, buckets))
            gaps = await history.gaps(from_ns, to_ns)
        return shapes.Buckets(bucket_s=asked.bucket_s, series=made, gaps=_gaps(gaps), catching_up=history.catching_up)

    return await _while_there(request, answer)


async def _lines(request: Asked, services: Services, sight: Sight, asked: LinesAsked) -> shapes.Lines:
    history = _history(services)
    from_ns, to_ns = _span(services, history, asked.begin, asked.end, len(asked.series))
    history.check(len(asked.series), from_ns, to_ns, points=asked.points)
    _must_see(sight, asked.series)

    async def answer() -> shapes.Lines:
        async with history.turn():
            made = []
            for each in asked.series:
                found = history.find(each.device, each.tag)
                line = await history.line(found, from_ns, to_ns, asked.points)
                made.append(await history.follower.ask(_line_series, found, line))
            gaps = await history.gaps(from_ns, to_ns)
        return shapes.Lines(from_ns=from_ns, to_ns=to_ns, series=made, gaps=_gaps(gaps), catching_up=history.catching_up)

    return await _while_there(request, answer)


def _history(services: Services) -> History:
    history = services.history()
    if history is None:
        raise Unavailable("no history is kept here", "set history.enabled in the site document")
    return history


def _span(services: Services, history: History, begin: str | None, end: str | None, series: int) -> tuple[int, int]:
    """From and to. Raises Unfit, TooLarge."""
    to_ns = moment(end, "to") if end is not None else services.clock.time_ns()
    from_ns = moment(begin, "from") if begin is not None else to_ns - USUAL_NS
    history.check(series, from_ns, to_ns)
    return from_ns, to_ns


def _must_see(sight: Sight, series: Sequence[SeriesName]) -> None:
    for each in series:
        sight.must_see(each.device)


def _accepted(header: str) -> FormatName:
    """The first format that the caller names."""
    names: dict[str, FormatName] = {MEDIA_TYPES[each].partition(";")[0]: each for each in ("csv", "ndjson", "arrow", "parquet")}
    wanted = [each.partition(";")[0].strip().lower() for each in header.split(",")]
    return next((names[each] for each in wanted if each in names), "csv")


async def _while_there(request: Asked, answer: Callable[[], Awaitable[T]]) -> T:
    """The answer; where the caller goes before it is there, the work ends."""
    work = asyncio.ensure_future(answer())
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Unavailable("the caller is gone", "")
        return work.result()
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _gone(request: Asked) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# ------------------------------------------------------------------------------------------------------------- as it is said


def _samples(history: History, found: Found, from_ns: int, to_ns: int, page: Page) -> shapes.Samples:
    some = page.samples
    columns = (some.time_ns.tolist(), values(some), some.quality.tolist(), some.epoch.tolist(), some.seq.tolist())
    items = [
        shapes.Sample(time_ns=time_ns, value=value, quality=quality, epoch=epoch, seq=seq)
        for time_ns, value, quality, epoch, seq in zip(*columns, strict=True)
    ]
    last = (int(some.time_ns[-1]), int(some.seq[-1]), int(some.nth[-1])) if page.more else None
    return shapes.Samples(
        device=found.device,
        tag=found.tag.name,
        kind=found.tag.kind.value,
        unit=found.tag.unit,
        from_ns=from_ns,
        to_ns=to_ns,
        items=items,
        gaps=_gaps(page.gaps),
        catching_up=history.catching_up,
        next=cursor_of(last) if last is not None else None,
    )


def _bucket_series(found: Found, made: Buckets) -> shapes.BucketSeries:
    return shapes.BucketSeries(
        device=found.device,
        tag=found.tag.name,
        kind=found.tag.kind.value,
        unit=found.tag.unit,
        start_ns=made.start_ns.tolist(),
        count=made.count.tolist(),
        bad=made.bad.tolist(),
        good_share=[None if math.isnan(each) else round(each, 6) for each in made.good_share.tolist()],
        min=_numbers(made.low),
        max=_numbers(made.high),
        avg=_numbers(made.avg),
        mean=_numbers(made.mean),
        first=_numbers(made.first),
        last=_numbers(made.last),
    )


def _line_series(found: Found, line: Line) -> shapes.LineSeries:
    return shapes.LineSeries(
        device=found.device,
        tag=found.tag.name,
        kind=found.tag.kind.value,
        unit=found.tag.unit,
        of=line.of,
        time_ns=line.time_ns.tolist(),
        value=line.value.tolist(),
        breaks=line.breaks.tolist(),
    )


def _gaps(gaps: Sequence[Gap]) -> list[shapes.Gap]:
    return [shapes.Gap(from_ns=each.from_ns, to_ns=each.to_ns, reason=each.reason, records=each.records) for each in gaps]


def _numbers(column: Floats) -> list[shapes.Number]:
    return [each if math.isfinite(each) else None if math.isnan(each) else _endless(each) for each in column.tolist()]


def _endless(value: float) -> str:
    return "Infinity" if value > 0 else "-Infinity"


OPERATIONS: Final = (
    read_history,
    read_history_buckets,
    query_history_buckets,
    read_history_line,
    query_history_line,
    export_history,
)
