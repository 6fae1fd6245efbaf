"""The schema: the shapes of the API as types, and its operations as fields.

Types are made from the Structs of ``holdfast.shapes``, so that both faces say the same. A field calls the function of an operation
after the operation's own guard, with the caller's own sight: what is refused there is refused here.
"""

from __future__ import annotations

import asyncio
import inspect
import types
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final, Literal, NewType, Optional, get_args, get_origin

import msgspec
import strawberry
from graphql import GraphQLError
from litestar.handlers.http_handlers import HTTPRouteHandler
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext, Info
from strawberry.types.scalar import ScalarDefinition

from gateway.api import operation
from gateway.api.graphql.limits import MOST_LIMIT, USUAL_LIMIT
from gateway.api.operation import Asked
from gateway.api.routes import commands, connections, devices, gateway, history, journal, uplinks, values
from gateway.api.services import Services
from gateway.identity.sight import Sight
from gateway.objections import Unfit
from holdfast.shapes import commands as command_shapes
from holdfast.shapes import common
from holdfast.shapes import connections as connection_shapes
from holdfast.shapes import devices as device_shapes
from holdfast.shapes import gateway as gateway_shapes
from holdfast.shapes import history as history_shapes
from holdfast.shapes import journal as journal_shapes
from holdfast.shapes import uplinks as uplink_shapes
from holdfast.shapes import values as value_shapes

LONGEST_WORD: Final = 512

Long = NewType("Long", int)
Json = NewType("Json", object)


@dataclass(slots=True)
class Context:
    """Who asks, and of whom. The gateway's loop carries operations out, one after the other; all else is another thread's."""

    request: Asked
    services: Services
    sight: Sight
    loop: asyncio.AbstractEventLoop
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


_Info = Info[Context, None]


async def ask(info: _Info, handler: HTTPRouteHandler, **arguments: Any) -> Any:  # Any: what the operation takes and gives
    """What the operation ``handler`` answers, after its guard. Raises an Objection, as it would."""
    context = info.context
    for name, value in arguments.items():
        if isinstance(value, str) and len(value) > LONGEST_WORD:
            raise Unfit(f"{name} has at most {LONGEST_WORD} characters")
        if name == "limit" and not 1 <= value <= MOST_LIMIT:
            raise Unfit(f"limit is 1 to {MOST_LIMIT} here", "page on with cursor")
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_carried_out(context, handler, arguments), context.loop))


async def _carried_out(context: Context, handler: HTTPRouteHandler, arguments: dict[str, Any]) -> Any:  # Any: as ask
    given = {"request": context.request, "services": context.services, "sight": context.sight}
    async with context.turn:
        await operation.guard(context.request, handler)
        return await handler.fn(**arguments, **{name: given[name] for name in _wants(handler) & given.keys()})


@cache
def _wants(handler: HTTPRouteHandler) -> frozenset[str]:
    return frozenset(inspect.signature(handler.fn).parameters)


# ---------------------------------------------------------------------------------------------- types

_TYPES: Final[dict[Any, Any]] = {}  # Any: Structs, and what was made of them


def _made(name: str, says: str, hints: dict[str, Any], fields: dict[str, Any]) -> Any:  # Any: annotations, fields, a type
    """A GraphQL type that is called ``name``."""
    body = {"__annotations__": hints, "__doc__": says, **fields}
    return strawberry.type(types.new_class(name, (), {}, lambda made: made.update(body)), name=name, description=says)


def _typed(struct: type[msgspec.Struct], **fields: Any) -> Any:  # Any: fields with resolvers, and a type that is made here
    """The type with the fields of ``struct``, and ``fields``."""
    if struct not in _TYPES:
        hints = {each.name: _of(each.type) for each in msgspec.structs.fields(struct)}
        _TYPES[struct] = _made(struct.__name__, (struct.__doc__ or "").strip(), hints, fields)
    return _TYPES[struct]


def _page(struct: type[msgspec.Struct], **fields: Any) -> Any:  # Any: as above
    """A part of a list of these."""
    hints = {"items": list[_typed(struct, **fields)], "next": _or_null(str)}  # type: ignore[misc]  # a type that is made here
    return _made(f"{struct.__name__}Page", (common.Page.__doc__ or "").strip(), hints, {})


def _of(form: Any) -> Any:  # Any: annotations
    """The GraphQL type of a field's type: whole numbers have 64 bits; what can be several things is JSON."""
    origin, inner = get_origin(form), get_args(form)
    if origin is Annotated:
        return _of(inner[0])
    if origin is Literal:
        return str
    if origin is list:
        return list[_of(inner[0])]  # type: ignore[misc]  # a type that is made here
    if type(None) in inner and len(inner) == 2:
        return _or_null(_of(next(each for each in inner if each is not type(None))))
    if isinstance(form, type) and issubclass(form, msgspec.Struct):
        return _typed(form)
    return {str: str, bool: bool, float: float, int: Long}.get(form, _or_null(Json))


def _or_null(form: Any) -> Any:  # Any: a type that is made here
    return Optional[form]  # noqa: UP045 - what is made here has no |


# ---------------------------------------------------------------------------------------------- fields

_Cursor = str | None
_Root = strawberry.Parent[Any]  # Any: the Struct in which the field lies


async def _values_of(root: _Root, info: _Info, tag: str = "*", limit: int = USUAL_LIMIT, cursor: _Cursor = None) -> Any:
    return await ask(info, values.list_device_values, device=root.name, tag=tag, limit=limit, cursor=cursor)


async def _tags_of(root: _Root, info: _Info, limit: int = USUAL_LIMIT, cursor: _Cursor = None) -> Any:
    return await ask(info, devices.list_tags, device=root.name, limit=limit, cursor=cursor)


async def _gateway(info: _Info) -> Any:
    return await ask(info, gateway.get_gateway)


async def _connections(info: _Info, limit: int = USUAL_LIMIT, cursor: _Cursor = None) -> Any:
    return await ask(info, connections.list_connections, limit=limit, cursor=cursor)


async def _devices(info: _Info, connection: str | None = None, limit: int = USUAL_LIMIT, cursor: _Cursor = None) -> Any:
    return await ask(info, devices.list_devices, connection=connection, limit=limit, cursor=cursor)


async def _device(info: _Info, name: str) -> Any:
    return await ask(info, devices.get_device, device=name)


async def _values(info: _Info, device: str = "*", tag: str = "*", limit: int = USUAL_LIMIT, cursor: _Cursor = None) -> Any:
    return await ask(info, values.list_values, device=device, tag=tag, limit=limit, cursor=cursor)


async def _history(
    info: _Info,
    device: str,
    tag: str,
    begin: Annotated[str | None, strawberry.argument(name="from", description="Nanoseconds since 1970, or RFC 3339.")] = None,
    end: Annotated[str | None, strawberry.argument(name="to", description="The same; now where it is absent.")] = None,
    limit: int = USUAL_LIMIT,
    cursor: _Cursor = None,
) -> Any:
    return await ask(info, history.read_history, device=device, tag=tag, begin=begin, end=end, limit=limit, cursor=cursor)


async def _commands(
    info: _Info, device: str | None = None, stage: str | None = None, limit: int = USUAL_LIMIT, cursor: _Cursor = None
) -> Any:
    return await ask(info, commands.list_commands, device=device, stage=stage, limit=limit, cursor=cursor)


async def _ledger(info: _Info) -> Any:
    return await ask(info, journal.get_ledger)


async def _uplinks(info: _Info, limit: int = USUAL_LIMIT, cursor: _Cursor = None) -> Any:
    return await ask(info, uplinks.list_uplinks, limit=limit, cursor=cursor)


def _field(resolver: Any, form: Any, says: str) -> Any:  # Any: strawberry's own
    """A field that is null where it cannot be answered."""
    return strawberry.field(resolver=resolver, graphql_type=_or_null(form), description=says)


def _query() -> Any:  # Any: a type that is made here
    readings = _page(value_shapes.Reading)
    device_fields = {
        "values": _field(_values_of, readings, "The latest values of its tags."),
        "tag_list": _field(_tags_of, _page(device_shapes.Tag), "What values it has."),
    }
    device_page = _page(device_shapes.Device, **device_fields)
    fields = {
        "gateway": _field(_gateway, _typed(gateway_shapes.Gateway), "Who and how the gateway is."),
        "connections": _field(_connections, _page(connection_shapes.Connection), "How each way to the field is."),
        "devices": _field(_devices, device_page, "How each device is."),
        "device": _field(_device, _typed(device_shapes.Device), "How one device is."),
        "values": _field(_values, readings, "The latest values of many devices; * and ? in names."),
        "history": _field(_history, _typed(history_shapes.Samples), "Stored values of one tag."),
        "commands": _field(_commands, _page(command_shapes.Command), "Commands that are remembered, the newest first."),
        "ledger": _field(_ledger, _typed(journal_shapes.Ledger), "The account of every record."),
        "uplinks": _field(_uplinks, _page(uplink_shapes.Uplink), "How each uplink is."),
    }
    return _made("Query", "What the gateway knows, as the operations of the API give it.", {}, fields)


class _Schema(strawberry.Schema):
    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Said by whoever carries the query out."""


@cache
def schema() -> strawberry.Schema:
    """Made once: it takes a moment."""
    scalars: dict[object, ScalarDefinition] = {
        Long: strawberry.scalar(name="Long", description="A whole number of 64 bits.", serialize=int, parse_value=int),
        Json: strawberry.scalar(name="Json", description="Any JSON value.", serialize=msgspec.to_builtins, parse_value=lambda value: value),
    }
    return _Schema(query=_query(), config=StrawberryConfig(auto_camel_case=True, scalar_map=scalars))
