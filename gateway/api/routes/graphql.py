"""GraphQL: the reading operations of the API, as many as are needed in one question.

It needs the optional packages of ``holdfast[graphql]``; where they are not installed the answer says so. They are loaded with the
first query: a gateway that is asked none does not pay for them.
"""

from __future__ import annotations

import asyncio
import importlib
from functools import cache
from typing import Any, Final

from litestar.params import JSONBody

from gateway.api.operation import Asked, Given, Reach, Seen, post
from gateway.identity.principal import Permission
from gateway.objections import Unavailable
from holdfast.shapes.graphql import GraphqlAnswer, GraphqlQuery

CARRY_OUT: Final = "gateway.api.graphql.carry_out"


@post(
    "/graphql",
    id="ask_graphql",
    permission=Permission.SEE_STATUS,
    reach=Reach.DEVICES,
    tag="graphql",
    summary="Ask for much in one question (GraphQL)",
    status=200,
    audited=False,
    idempotency=False,
    problems=(413,),
)
async def ask_graphql(request: Asked, services: Given, sight: Seen, data: JSONBody[GraphqlQuery]) -> GraphqlAnswer:
    """Gateway, connections, devices, tags, values, history, commands, ledger and uplinks. Each field needs the permission of the
    operation that it stands for. Depth, aliases and cost are limited; lists have `limit` and `cursor`."""
    try:
        module, graphql = await asyncio.to_thread(_loaded)
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith("gateway"):
            raise
        raise Unavailable("GraphQL is not installed on this gateway", "pip install 'holdfast[graphql]', then restart it") from None
    answer: GraphqlAnswer = await graphql.answer(data, module.Context(request, services, sight, asyncio.get_running_loop()))
    return answer


@cache
def _loaded() -> tuple[Any, Any]:  # Any: a module that may be absent, and its Graphql
    """Raises ModuleNotFoundError."""
    module = importlib.import_module(CARRY_OUT)
    return module, module.Graphql()


OPERATIONS: Final = (ask_graphql,)
