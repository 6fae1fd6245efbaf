"""A query from its text to its answer: judged, checked, carried out in bounded time; what its errors may tell."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog
from graphql import GraphQLError, MaxIntrospectionDepthRule, specified_rules, validate

from gateway.api.graphql.limits import judged
from gateway.api.graphql.schema import Context, schema
from gateway.objections import Objection, TooMany, Unavailable, Unfit
from holdfast.shapes.graphql import GraphqlAnswer, GraphqlQuery
from protocols.contract import Problem

log = structlog.get_logger("holdfast.api")

LONGEST_S: Final = 5.0
MOST_AT_ONCE: Final = 4
MOST_ERRORS: Final = 20


class Graphql:
    """Carries queries out, a few at once, each in a thread: to put an answer together is work that would hold the gateway's loop."""

    def __init__(self) -> None:
        schema()
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="graphql")
        self._running = 0

    async def answer(self, asked: GraphqlQuery, context: Context) -> GraphqlAnswer:
        """Raises Unfit, TooLarge for what is refused whole; TooMany, Unavailable."""
        if self._running >= MOST_AT_ONCE:
            raise TooMany(f"{MOST_AT_ONCE} queries are being answered", "ask again in a moment")
        self._running += 1
        work = context.loop.run_in_executor(self._threads, _in_thread, asked, context)
        work.add_done_callback(self._done)
        return await asyncio.shield(work)

    def _done(self, work: asyncio.Future[GraphqlAnswer]) -> None:
        self._running -= 1
        if not work.cancelled():
            work.exception()  # whoever asked may have gone: then nobody looks at it


def _in_thread(asked: GraphqlQuery, context: Context) -> GraphqlAnswer:
    """In a loop of its own; what it asks of the gateway is done in the gateway's."""
    try:
        return asyncio.run(_in_time(asked, context))
    except TimeoutError:
        raise Unavailable(f"the query took longer than {LONGEST_S:g} s", "ask for less at a time, page by page") from None


async def _in_time(asked: GraphqlQuery, context: Context) -> GraphqlAnswer:
    async with asyncio.timeout(LONGEST_S):
        return await _answer(asked, context)


async def _answer(asked: GraphqlQuery, context: Context) -> GraphqlAnswer:
    variables: Mapping[str, Any] = asked.variables or {}  # Any: JSON
    document = judged(asked.query, variables, asked.operation_name)
    ours = schema()
    wrong = validate(ours._schema, document, (*specified_rules, MaxIntrospectionDepthRule), max_errors=MOST_ERRORS)
    if wrong:
        raise Unfit("the query does not fit the schema", "ask for __schema, or see the message of each problem", _problems(wrong))
    result = await ours.execute(asked.query, dict(variables), context, operation_name=asked.operation_name)
    if result.data is None and result.errors and all(each.original_error is None for each in result.errors):
        raise Unfit("the query cannot be carried out", "see the message of each problem", _problems(result.errors))
    return GraphqlAnswer(data=result.data, errors=[_told(each) for each in (result.errors or [])[:MOST_ERRORS]])


def _problems(errors: Sequence[GraphQLError]) -> list[Problem]:
    return [Problem("query", each.message[:500]) for each in errors[:MOST_ERRORS]]


def _told(error: GraphQLError) -> dict[str, Any]:  # Any: JSON
    """What the caller is told of an error in a field: an objection as it is, a bug of ours without a word of it."""
    original = error.original_error
    said: dict[str, Any] = {"path": list(error.path or [])}  # Any: JSON
    if original is None:
        return {**said, "message": error.message[:500]}
    if isinstance(original, Objection):
        return {**said, "message": original.detail, "extensions": {"code": original.code, "advice": original.advice}}
    log.error("query_failed", path=said["path"], exc_info=original)
    return {**said, "message": "the gateway failed at this", "extensions": {"code": "internal", "advice": "its log says more"}}
