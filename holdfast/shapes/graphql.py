"""A GraphQL query and its answer (GraphQL over HTTP, 5.1 and 7)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta


class GraphqlQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"operation_name": "operationName"}):
    """What is asked. One query at a time: a list of them is refused."""

    query: Annotated[
        str, Meta(min_length=1, max_length=16_384, description="A GraphQL document.", examples=["{ devices { items { name lost } } }"])
    ]
    variables: Annotated[dict[str, Any] | None, Meta(description="By name.")] = None  # Any: JSON
    operation_name: Annotated[
        Annotated[str, Meta(max_length=256)] | None, Meta(description="Which operation, where the document has several.")
    ] = None
    extensions: dict[str, Any] | None = None  # Any: clients send some; they are not looked at


class GraphqlAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was found. A field that could not be answered is null, and ``errors`` says why."""

    data: dict[str, Any] | None = None  # Any: as the query says
    errors: list[dict[str, Any]] = []  # Any: message, path and extensions (code, advice) of each
