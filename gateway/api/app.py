"""The API as an ASGI application, made from services. Every operation is listed in ``routes``; every rule stands here once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Final

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme, Server

from gateway.api import operation, problems, routes
from gateway.api.audited import audited
from gateway.api.bodies import bodies
from gateway.api.conditional import etags
from gateway.api.idempotency import idempotent
from gateway.api.limits import Rates
from gateway.api.services import Services
from gateway.api.who import COOKIE, who
from gateway.config.api import Limits

BASE: Final = "/api/v1"
MOST_BODY_BYTES: Final = 1024 * 1024
"""What needs more says so itself."""


def make(services: Services) -> Litestar:
    """The application. Raises whatever Litestar finds wrong in a declaration."""

    def provide_services() -> Services:
        return services

    return _assembled(
        provide_services,
        [audited(services.audit), who(services.identity, _rates(services)), etags, bodies, idempotent(services.idempotency)],
    )


def _rates(services: Services) -> Rates:
    api = services.site().api
    return Rates((api.limits if api is not None else Limits()).requests_per_s, services.clock)


def unserved() -> Litestar:
    """The same operations with nothing behind them: for whoever wants to know what they are."""

    def provide_services() -> Services:
        raise AssertionError("this application serves nobody")

    return _assembled(provide_services, [])


def _assembled(provide_services: Callable[[], Services], middleware: Sequence[Any]) -> Litestar:  # Any: Litestar takes many kinds
    return Litestar(
        route_handlers=[*routes.AT_ROOT, Router(BASE, route_handlers=[*routes.V1, *routes.SOCKETS])],
        dependencies={
            "services": Provide(provide_services, sync_to_thread=False, use_cache=True),
            "sight": Provide(operation.sight),
        },
        guards=[operation.guard],
        middleware=middleware,
        exception_handlers=problems.HANDLERS,
        openapi_config=described(),
        request_max_body_size=MOST_BODY_BYTES,
        signature_types=[Services],
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )


def described() -> OpenAPIConfig:
    """What the OpenAPI document says besides the operations."""
    return OpenAPIConfig(
        title="Holdfast local API",
        version=version("holdfast"),
        description="What people and machines on site ask and change. See docs/reference/api.md for its conventions.",
        servers=[Server(url="/")],
        security=[{"bearer": []}, {"session": []}],
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(type="http", scheme="bearer", description="An API token."),
                "session": SecurityScheme(type="apiKey", security_scheme_in="cookie", name=COOKIE, description="A session."),
            }
        ),
        render_plugins=[],
        use_handler_docstrings=True,
    )
