"""Structured logs: events with fields, one JSON object a line, or aligned text for a person.

A field never holds a secret, because configuration holds references only; and never a control character that a peer
chose, because both renderers escape them.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import msgspec
import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(level: str, style: Literal["json", "console"]) -> None:
    """Send events of at least ``level`` to standard error. Libraries' own log lines above warning go the same way."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if style == "json":
        renderer: structlog.types.Processor = structlog.processors.JSONRenderer(serializer=_dumps)
    else:
        shared.remove(structlog.processors.format_exc_info)
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="%(message)s", force=True)


def _dumps(event: object, default: object = None) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()
